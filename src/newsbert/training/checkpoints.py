"""Checkpoints of a training, written atomically: a new one must be complete before the previous one is removed."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from newsbert.core import files

_TENSORS, _RECORD = "tensors.safetensors", "record.json"
_LATEST, _BEST = "checkpoint-", "best-"


class Checkpoints:
    """Checkpoints of one training.

    Args:
        directory: Directory of the checkpoints; created if it does not exist.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)
        for partial in directory.glob(".*-*"):
            shutil.rmtree(partial)

    def remember(self, name: str, make: Callable[[], str]) -> str:
        """Return the value stored under a name; make and store it on the first call of a training."""
        value = self.remembered(name)
        if value is None:
            value = make()
            self.keep(name, value)
        return value

    def remembered(self, name: str) -> str | None:
        """Return the value stored under a name, or `None`."""
        file = self._directory / name
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def keep(self, name: str, value: str) -> None:
        """Store a value under a name."""
        files.write_atomically(self._directory / name, value)

    def save(self, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Save a checkpoint in place of the previous one.

        Raises:
            OSError, SafetensorError: If it cannot be written; the previous one still exists.
        """
        self._write(_LATEST, step, tensors, record)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return tensors and record of the latest checkpoint; if there is none, remove the best parameters as well."""
        record = self.record()
        if record is None:
            for best in self._directory.glob(f"{_BEST}*"):
                shutil.rmtree(best)
            return None
        return load_file(self._directory / f"{_LATEST}{record['step']}" / _TENSORS), record

    def save_best(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Save this step's parameters as the best, in place of earlier ones.

        Those that the latest checkpoint refers to stay until there is another checkpoint.

        Raises:
            OSError, SafetensorError: If they cannot be written.
        """
        record = self.record()
        self._write(_BEST, step, tensors, {}, keep=record["best_step"] if record else 0)

    def load_best(self, step: int) -> dict[str, Tensor]:
        """Return the best parameters, saved at this step."""
        return load_file(self._directory / f"{_BEST}{step}" / _TENSORS)

    def record(self) -> dict[str, Any] | None:
        """Return the record of the latest checkpoint, or `None`."""
        steps = self._steps(_LATEST)
        if not steps:
            return None
        record: dict[str, Any] = json.loads(
            (self._directory / f"{_LATEST}{steps[-1]}" / _RECORD).read_text(encoding="utf-8")
        )
        return record

    def _write(
        self, kind: str, step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any], keep: int = 0
    ) -> None:
        part, final = self._directory / f".{kind}{step}", self._directory / f"{kind}{step}"
        if final.exists():  # a resumed training has reached the same step again
            return
        try:
            part.mkdir()
            save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, part / _TENSORS)
            (part / _RECORD).write_text(json.dumps(record), encoding="utf-8")
            for path in (part / _TENSORS, part / _RECORD, part):
                files.sync(path)
            part.rename(final)
            files.sync(self._directory)  # before the replaced ones are removed
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for other in self._steps(kind):
            if other not in {step, keep}:
                shutil.rmtree(self._directory / f"{kind}{other}", ignore_errors=True)

    def _steps(self, kind: str) -> list[int]:
        return sorted(int(path.name.removeprefix(kind)) for path in self._directory.glob(f"{kind}*"))
