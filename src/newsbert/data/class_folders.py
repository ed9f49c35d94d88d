"""A directory with a folder of text files for every class, as aclImdb and 20 Newsgroups have it."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from newsbert.data.lines import Row
from newsbert.errors import DataError

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The splits by the names that files and folders have after them."""


def find_split(value: object) -> str | None:
    """Return the split that a cell of a column `split` names: `train`, `validation` or `test`."""
    return SPLIT_NAMES.get(str(value).strip().lower())


_UNLABELLED = {"unsup", "unlabeled", "unlabelled"}
"""Folders of rows without a label: aclImdb has one."""

TextsByClass = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class ClassFolders:
    """Text files by split and class.

    Attributes:
        splits: The files; those of no split are under `""`.
        others: Files beside them, which are left out.
        empty: Folders without such files.
    """

    splits: Mapping[str, TextsByClass]
    others: Sequence[Path]
    empty: Sequence[Path]

    def files(self) -> list[Path]:
        """Return all files."""
        return [file for by_class in self.splits.values() for files in by_class.values() for file in files]

    def notes(self) -> list[str]:
        """Return what is left out."""
        notes = []
        if self.others:
            count = len(self.others)
            are = "file that is no text file is" if count == 1 else "files that are no text files are"
            notes.append(f"{count} {are} left out, such as {self.others[0]}")
        if self.empty:
            names = ", ".join(str(folder) for folder in self.empty[:3])
            notes.append(f"{len(self.empty)} folder{'' if len(self.empty) == 1 else 's'} without texts: {names}")
        return notes


def find(directory: Path) -> ClassFolders | None:
    """Return the text files of a directory, if it has at least two folders of them, and little else."""
    others: list[Path] = []
    empty: list[Path] = []
    folders = subfolders(directory)
    splits = {SPLIT_NAMES[folder.name.lower()]: folder for folder in folders if folder.name.lower() in SPLIT_NAMES}
    if "train" not in splits:
        splits = {"": directory}
    found = {split: _texts_by_class(folder, others, empty) for split, folder in splits.items()}
    first = found.get("train", found.get("", {}))
    num_texts = sum(len(files) for by_class in found.values() for files in by_class.values())
    return ClassFolders(found, others, empty) if len(first) > 1 and num_texts > len(others) else None


def rows(by_class: TextsByClass) -> Iterator[Row]:
    """Yield the rows of a split.

    Raises:
        DataError: If a file is not UTF-8; the message has how many are.
    """
    undecodable: list[tuple[Path, UnicodeDecodeError]] = []
    for label, files in by_class.items():
        for file in files:
            try:
                text = file.read_text(encoding="utf-8-sig")
            except UnicodeDecodeError as error:
                undecodable.append((file, error))
                continue
            if not undecodable:
                yield {"text": text, "label": "" if label.lower() in _UNLABELLED else label}
    if undecodable:
        file, first = undecodable[0]
        more = f"; {len(undecodable) - 1} more files are not" if len(undecodable) > 1 else ""
        source, target = shlex.quote(str(file)), shlex.quote(str(file.with_name(f"utf8-{file.name}")))
        hint = f"iconv -f windows-1252 -t utf-8 {source} > {target} && mv {target} {source}"
        raise DataError(f"{file}: not valid UTF-8: {first.reason}{more}", f"if it is Windows-1252: {hint}")


_TEXT_SUFFIXES = (".txt", ".text", ".md", "")
"""Of texts; the first that a folder has. Those of 20 Newsgroups have none, but numbers for names."""


def subfolders(directory: Path) -> list[Path]:
    """Return the folders in a directory, without hidden ones and what macOS adds."""
    return [
        folder
        for folder in sorted(directory.iterdir())
        if folder.is_dir() and not folder.name.startswith(".") and folder.name != "__MACOSX"
    ]


def _texts_by_class(directory: Path, others: list[Path], empty: list[Path]) -> dict[str, list[Path]]:
    """Return the text files by folder; others, and folders without any, go to the lists."""
    found = {}
    for folder in subfolders(directory):
        files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith(".")]
        by_suffix = {suffix: [file for file in files if file.suffix.lower() == suffix] for suffix in _TEXT_SUFFIXES}
        texts = next(filter(None, by_suffix.values()), [])
        others += [file for file in files if file not in set(texts)]
        if texts:
            found[folder.name] = texts
        else:
            empty.append(folder)
    return found
