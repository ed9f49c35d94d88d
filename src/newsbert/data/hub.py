"""Data sets of the Hugging Face Hub."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

from newsbert.core.installation import MissingExtraError
from newsbert.data.class_folders import SPLIT_NAMES
from newsbert.data.source import Source, Split
from newsbert.errors import DataError, first_line


def open_hub(name: str, *, saved: bool = False) -> Source:
    """Load a data set with `datasets`.

    Args:
        name: Name on the Hub, or a local directory.
        saved: Whether `save_to_disk` wrote the directory; otherwise it has the layout of the Hub.
    """
    try:
        import datasets
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the HTTP library it uses
    except ImportError as error:
        raise MissingExtraError("datasets", "train") from error
    try:
        loaded: Any = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except (OSError, ValueError, HTTPError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"no data set {name!r} could be loaded: {first_line(error)}",
            "check the name and the network, or give a file: newsbert train --data rows.csv",
        ) from error
    if isinstance(loaded, datasets.Dataset):
        loaded = {"all": loaded}
    if not any(len(rows) for rows in loaded.values()):
        raise DataError(f"the data set {name!r} has no rows", "give a few labelled rows for every class")
    parts: dict[str, list[datasets.Dataset]] = {}
    for split, rows in loaded.items():
        if len(rows):
            parts.setdefault(SPLIT_NAMES.get(str(split), str(split)), []).append(rows)
    usable: dict[str, list[datasets.Dataset]] = {
        split: parts[split] for split in ("train", "validation", "test") if split in parts
    }
    if "train" not in usable:
        usable = {"": [rows for part in parts.values() for rows in part]}
    identity = repr([(split, [rows._fingerprint for rows in part]) for split, part in usable.items()])
    splits = {split: _build_split(f"split {split}" if split else name, part) for split, part in usable.items()}
    return Source(splits, identity)


def _build_split(name: str, part: Sequence[Any]) -> Split:
    """Build a split from one or several `datasets.Dataset`."""
    features = {column: feature for rows in part for column, feature in rows.features.items()}
    names = {column: tuple(feature.names) for column, feature in features.items() if hasattr(feature, "names")}
    return Split(functools.partial(itertools.chain.from_iterable, part), lambda: list(features), name, names)
