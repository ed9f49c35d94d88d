"""What labelled rows are like before anything is trained on them."""

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from newsbert.core.types import IntArray
from newsbert.data import corpus, row_columns, sources
from newsbert.data.corpus import Corpus
from newsbert.data.lines import Row
from newsbert.data.ragged_array import TextColumn
from newsbert.data.row_columns import NAMES_OF_LABELS, NAMES_OF_TEXTS
from newsbert.data.source import Source
from newsbert.errors import DataError

MAX_LABELS = 200
"""A column with more values than this is taken for no label's."""

_LOOKED_AT, _MEASURED = 1_000, 2_000
_FEW_VALUES = 20
"""With more, a column whose values are all different holds no labels."""
_ADDRESS = re.compile(r"(https?://|www\.)\S+", re.IGNORECASE)
_CUT_SHARE, _TOLD_SHARE = 0.05, 0.005
"""Of more texts than this the end is not to be cut off, or that is at least told."""
_LENGTHS = (128, 192, 256, 384, 512)
"""Tokens to read: an encoder of BERT's has no more than 512 places."""
_FEW_ROWS, _UNEVEN = 50, 10


@dataclass(frozen=True)
class DatasetProfile:
    """What rows are like.

    Attributes:
        data: What was looked at.
        columns: Its columns.
        text_column: Column of the text, where it is not one that is found by itself.
        label_column: Column of the label, where it is not `label`.
        rows: Rows by split and label; those of no split are under `all`.
        tokens: Tokens of a text: half of them have at most `p50`, and so on; special ones included.
        max_length: Tokens to read of a text.
        cut: Share of the texts that are longer.
        repeated: Rows whose text stood before.
        contradicting: Texts that have more than one label.
        leaked: Rows of training that stand in validation or test rows, too.
        notes: What to look at.
    """

    data: str
    columns: tuple[str, ...]
    text_column: str | None
    label_column: str | None
    rows: dict[str, dict[str, int]]
    tokens: dict[str, int]
    max_length: int
    cut: float
    repeated: int
    contradicting: int
    leaked: int
    notes: tuple[str, ...]


def profile_dataset(
    data: str,
    count_tokens: Callable[[list[str]], list[int]],
    labels: Sequence[str] = (),
    text_column: str | None = None,
    label_column: str | None = None,
) -> DatasetProfile:
    """Look at rows.

    Args:
        data: `sample`, a path, or the name of a Hub data set.
        count_tokens: Returns how many tokens texts have, special ones included.
        labels: Names of the integer labels 0, 1, …
        text_column: Column of the text; guessed where it has no usual name.
        label_column: Column of the label; guessed where it has no usual name.

    Raises:
        UsageError: If there is no such file.
        DataError: If a row cannot be trained on, or no column can be one of texts or labels.
    """
    sources.check_distinct(labels)
    source = sources.open_source(data)
    columns = source.columns()
    text_column, label_column, guesses = _guess(source, columns, text_column, label_column, data)
    found = corpus.prepare(source, labels, text_column, label_column)
    lengths = _lengths(found, count_tokens)
    max_length = next((each for each in _LENGTHS if (lengths > each).mean() <= _CUT_SHARE), _LENGTHS[-1])
    _, first, again = np.unique(found.digests[:, 0], return_index=True, return_inverse=True)
    contradicting = _contradicting(again, found.labels)
    leaked = _leaked(found)
    splits = {name: places for name, places in found.splits.items() if name or len(places) or len(found.splits) == 1}
    rows = {name or "all": _counted(found, places) for name, places in splits.items()}
    repeated = len(found.labels) - len(first)
    cut = float((lengths > max_length).mean())
    return DatasetProfile(
        data,
        tuple(columns),
        text_column,
        label_column,
        rows,
        {f"p{share}": int(np.percentile(lengths, share)) for share in (50, 95, 99)} | {"most": int(lengths.max())},
        max_length,
        cut,
        repeated,
        contradicting,
        leaked,
        (*guesses, *found.notes, *_notes(rows, repeated, contradicting, leaked, cut)),
    )


def _guess(
    source: Source, columns: Sequence[str], text_column: str | None, label_column: str | None, data: str
) -> tuple[str | None, str | None, list[str]]:
    """Return the columns of text and label, where they are not found by themselves, and what of it is guessed.

    Names go before values: of those, a label has few, and a text has long ones that are no addresses.

    Raises:
        DataError: If no column can be one of them.
    """
    said = []
    values = _values(source, columns)
    if label_column is None and row_columns.find(columns, "label") is None and not source.first_id:
        split = row_columns.find(columns, "split")
        others = {name: found for name, found in values.items() if name not in {text_column, split}}
        guessed = _guess_label(others)
        if guessed is not None:
            label_column = guessed
            said.append(f"the label is in {label_column!r}")
    label = source.label_column(columns, label_column, data)
    if text_column is None and not any(row_columns.find(columns, name) for name in ("text", "description")):
        text_column = _guess_text({name: found for name, found in values.items() if name != label}, columns)
        said.append(f"the text is in {text_column!r}")
    return text_column, label_column, [f"guessed: {' and '.join(said)}"] if said else []


def _guess_label(values: dict[str, list[object]]) -> str | None:
    counts = {name: len(set(map(str, found))) for name, found in values.items()}
    possible = [name for name, count in counts.items() if 1 < count <= MAX_LABELS and not _are_addresses(values[name])]
    texts = [name for name in possible if len(values[name]) > _FEW_VALUES and counts[name] == len(values[name])]
    possible = [name for name in possible if name not in texts]
    if len(values) < 2 or not possible:
        return None
    named = row_columns.find_named_like(possible, NAMES_OF_LABELS)
    return named or min(possible, key=lambda name: counts[name])


def _guess_text(values: dict[str, list[object]], columns: Sequence[str]) -> str:
    possible = {name: found for name, found in values.items() if _are_texts(found)}
    if not possible:
        raise DataError(
            f"no column holds texts; the columns are: {row_columns.show_names(columns)}", "name it with --text-column"
        )
    named = row_columns.find_named_like(list(possible), NAMES_OF_TEXTS)
    means = {name: float(np.mean([len(str(value)) for value in found])) for name, found in possible.items()}
    return named or max(means, key=lambda name: means[name])


def _are_texts(values: Sequence[object]) -> bool:
    """Return whether there are letters in them, csv has numbers as texts, too, and they are no addresses."""
    return (
        bool(values)
        and all(isinstance(value, str) for value in values)
        and any(map(str.isalpha, "".join(map(str, values))))
        and not _are_addresses(values)
    )


def _are_addresses(values: Sequence[object]) -> bool:
    return sum(_ADDRESS.fullmatch(str(value).strip()) is not None for value in values) * 2 > len(values)


def _values(source: Source, columns: Sequence[str]) -> dict[str, list[object]]:
    """Return the values by column of rows drawn from each split, without those that are missing."""
    rows = [row for split in source.splits.values() for row in _drawn(split.rows())]
    return {name: [row[name] for row in rows if row.get(name) is not None and row[name] != ""] for name in columns}


def _drawn(rows: Iterable[Row]) -> list[Row]:
    """Return some rows, drawn evenly: files are often sorted by label.

    Source: Vitter, "Random sampling with a reservoir" (1985), algorithm R.
    """
    rng = random.Random(0)  # noqa: S311 - it keeps no secret
    drawn: list[Row] = []
    for number, row in enumerate(rows):
        if number < _LOOKED_AT:
            drawn.append(row)
        elif (place := rng.randrange(number + 1)) < _LOOKED_AT:
            drawn[place] = row
    return drawn


def _lengths(found: Corpus, count_tokens: Callable[[list[str]], list[int]]) -> IntArray:
    """Tokens of some texts, evenly from all."""
    if not len(found.labels):
        raise DataError("there are no rows", "give some labelled rows for every class")
    places = np.linspace(0, len(found.labels) - 1, min(_MEASURED, len(found.labels))).astype(np.int64)
    return np.array(count_tokens(list(TextColumn(found.texts, places))), np.int64)


def _contradicting(text_ids: IntArray, labels: corpus.Labels) -> int:
    """How many texts have more than one label."""
    pairs = np.unique(np.stack([text_ids.ravel(), labels.astype(np.int64)]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())


def _leaked(found: Corpus) -> int:
    training = found.splits.get("train")
    held_out = [places for name, places in found.splits.items() if name in {"validation", "test"}]
    if training is None or not held_out:
        return 0
    return int(np.isin(found.digests[training, 0], found.digests[np.concatenate(held_out), 0]).sum())


def _counted(found: Corpus, places: IntArray) -> dict[str, int]:
    counts = np.bincount(found.labels[places], minlength=len(found.label_names))
    return dict(zip(found.label_names, counts.tolist(), strict=True))


def _notes(rows: dict[str, dict[str, int]], repeated: int, contradicting: int, leaked: int, cut: float) -> list[str]:
    notes = []
    trained = rows.get("train") or next(iter(rows.values()))
    fewest, most = (pick(trained, key=lambda name: trained[name]) for pick in (min, max))
    if trained[fewest] < _FEW_ROWS:
        notes.append(f"{fewest!r} has {_some(trained[fewest], 'row')}: label some more, some hundreds pay most")
    if trained[most] > _UNEVEN * max(1, trained[fewest]):
        notes.append(
            f"{most!r} has {trained[most]} rows and {fewest!r} {trained[fewest]}: look at macro F1, not accuracy"
        )
    if contradicting:
        notes.append(f"{_some(contradicting, 'text')} with more than one label: training takes the first")
    if repeated:
        notes.append(f"{_some(repeated, 'row')} with the text of another row")
    if leaked:
        notes.append(f"{_some(leaked, 'training row')} also among validation or test rows: training leaves them out")
    if cut >= _TOLD_SHARE:
        notes.append(f"of {cut:.1%} of the texts the end is not read")
    return notes


def _some(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
