"""Checkpoints of a training: each appears whole or not at all, and the one before goes only then."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from newsbert.core import cache

_TENSORS, _RECORD = "tensors.safetensors", "record.json"
_LATEST, _BEST = "checkpoint-", "best-"


class Checkpoints:
    """Those of one training.

    Args:
        directory: Where they are; made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)
        for partial in directory.glob(".*-*"):
            shutil.rmtree(partial)

    def remember(self, name: str, make: Callable[[], str]) -> str:
        """What this returned when the training began."""
        known = self.remembered(name)
        if known is None:
            known = make()
            self.keep(name, known)
        return known

    def remembered(self, name: str) -> str | None:
        """What was kept under a name."""
        file = self._directory / name
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def keep(self, name: str, value: str) -> None:
        """Keep a value under a name."""
        part = self._directory / f".{name}"
        part.write_text(value, encoding="utf-8")
        part.rename(self._directory / name)

    def save(self, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Keep a checkpoint in the place of the one before.

        Raises:
            OSError, SafetensorError: If it cannot be written; the one before is still there.
        """
        self._write(_LATEST, step, tensors, record)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and record of the latest checkpoint; if there is none, no step is kept, either."""
        record = self.record()
        if record is None:
            for best in self._directory.glob(f"{_BEST}*"):
                shutil.rmtree(best)
            return None
        return load_file(self._directory / f"{_LATEST}{record['step']}" / _TENSORS), record

    def save_best(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep this step's parameters, no more an earlier one's; the latest checkpoint's stay until there is another.

        Raises:
            OSError, SafetensorError: If they cannot be written.
        """
        record = self.record()
        self._write(_BEST, step, tensors, {}, keep=record["best_step"] if record else 0)

    def load_best(self, step: int) -> dict[str, Tensor]:
        """The parameters of the step that is kept."""
        return load_file(self._directory / f"{_BEST}{step}" / _TENSORS)

    def record(self) -> dict[str, Any] | None:
        """What the latest checkpoint says of itself."""
        found = self._steps(_LATEST)
        if not found:
            return None
        record: dict[str, Any] = json.loads(
            (self._directory / f"{_LATEST}{found[-1]}" / _RECORD).read_text(encoding="utf-8")
        )
        return record

    def _write(
        self, kind: str, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any], keep: int = 0
    ) -> None:
        part, final = self._directory / f".{kind}{step}", self._directory / f"{kind}{step}"
        if final.exists():  # a training that went on has come to the same step again
            return
        try:
            part.mkdir()
            save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, part / _TENSORS)
            (part / _RECORD).write_text(json.dumps(record), encoding="utf-8")
            for each in (part / _TENSORS, part / _RECORD, part):
                cache.sync(each)
            part.rename(final)
            cache.sync(self._directory)  # before those that it replaces go
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for other in self._steps(kind):
            if other not in {step, keep}:
                shutil.rmtree(self._directory / f"{kind}{other}", ignore_errors=True)

    def _steps(self, kind: str) -> list[int]:
        return sorted(int(path.name.removeprefix(kind)) for path in self._directory.glob(f"{kind}*"))
