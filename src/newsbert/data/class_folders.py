"""A directory with one folder of text files per class: the layout of aclImdb and 20 Newsgroups."""

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
"""Splits by the names of their files and folders."""


def find_split(value: object) -> str | None:
    """Return the split that a cell of a `split` column names: `train`, `validation`, `test` or None."""
    return SPLIT_NAMES.get(str(value).strip().lower())


_UNLABELLED_FOLDERS = {"unsup", "unlabeled", "unlabelled"}
"""Names of folders of rows without a label; aclImdb has one."""

TextsByClass = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class ClassFolders:
    """Text files by split and class.

    Attributes:
        splits: Text files by split and class; the split is `""` if there are no splits.
        others: Other files, which are left out.
        empty: Folders without text files.
    """

    splits: Mapping[str, TextsByClass]
    others: Sequence[Path]
    empty: Sequence[Path]

    def files(self) -> list[Path]:
        """Return all text files."""
        return [file for by_class in self.splits.values() for files in by_class.values() for file in files]

    def notes(self) -> list[str]:
        """Return notes on files and folders that are left out."""
        notes = []
        if self.others:
            count = len(self.others)
            phrase = "file that is no text file is" if count == 1 else "files that are no text files are"
            notes.append(f"{count} {phrase} left out, such as {self.others[0]}")
        if self.empty:
            names = ", ".join(str(folder) for folder in self.empty[:3])
            notes.append(f"{len(self.empty)} folder{'' if len(self.empty) == 1 else 's'} without texts: {names}")
        return notes


def find(directory: Path) -> ClassFolders | None:
    """Return the class folders of a directory, or None.

    At least two folders must have texts, and most files must be texts.
    """
    others: list[Path] = []
    empty: list[Path] = []
    folders = subfolders(directory)
    splits = {SPLIT_NAMES[folder.name.lower()]: folder for folder in folders if folder.name.lower() in SPLIT_NAMES}
    if "train" not in splits:
        splits = {"": directory}
    texts_by_split = {split: _group_texts(folder, others, empty) for split, folder in splits.items()}
    first = texts_by_split.get("train", texts_by_split.get("", {}))
    num_texts = sum(len(files) for by_class in texts_by_split.values() for files in by_class.values())
    return ClassFolders(texts_by_split, others, empty) if len(first) > 1 and num_texts > len(others) else None


def rows(by_class: TextsByClass) -> Iterator[Row]:
    """Yield the rows of a split.

    Raises:
        DataError: If a file is not UTF-8; the message has the number of such files.
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
                yield {"text": text, "label": "" if label.lower() in _UNLABELLED_FOLDERS else label}
    if undecodable:
        file, first = undecodable[0]
        more = f"; {len(undecodable) - 1} more files are not" if len(undecodable) > 1 else ""
        source, target = shlex.quote(str(file)), shlex.quote(str(file.with_name(f"utf8-{file.name}")))
        hint = f"iconv -f windows-1252 -t utf-8 {source} > {target} && mv {target} {source}"
        raise DataError(f"{file}: not valid UTF-8: {first.reason}{more}", f"if it is Windows-1252: {hint}")


_TEXT_SUFFIXES = (".txt", ".text", ".md", "")
"""Suffixes of texts, in order of precedence. The files of 20 Newsgroups have no suffix, but numbers for names."""


def subfolders(directory: Path) -> list[Path]:
    """Return the folders in a directory, except hidden ones and the one that macOS adds."""
    return [
        folder
        for folder in sorted(directory.iterdir())
        if folder.is_dir() and not folder.name.startswith(".") and folder.name != "__MACOSX"
    ]


def _group_texts(directory: Path, others: list[Path], empty: list[Path]) -> dict[str, list[Path]]:
    """Return the text files by folder; append other files to `others` and folders without texts to `empty`."""
    texts_by_class = {}
    for folder in subfolders(directory):
        files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.startswith(".")]
        by_suffix = {suffix: [file for file in files if file.suffix.lower() == suffix] for suffix in _TEXT_SUFFIXES}
        texts = next(filter(None, by_suffix.values()), [])
        others += [file for file in files if file not in set(texts)]
        if texts:
            texts_by_class[folder.name] = texts
        else:
            empty.append(folder)
    return texts_by_class
