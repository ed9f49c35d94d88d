"""What tests that call commands need: a free port, and what the commands should have answered."""

import socket
import subprocess
from collections.abc import Sequence

import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.inference.model import Model

Result = subprocess.CompletedProcess[str]


def failed(result: Result, code: int, *parts: str) -> None:
    """Check an error's form: nothing on stdout, and at the end of stderr what is wrong and what to do about it."""
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    *_, error, hint = lines[: -1 if lines[-1] == "Hint: newsbert doctor" else None]
    assert error.startswith("Error: ")
    assert hint.startswith("Hint: ")
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in error, result.stderr


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def expected(bundle: Bundle, texts: Sequence[str]) -> list[dict[str, object]]:
    """What `predict --json` prints for texts."""
    predictions = Model.from_directory(bundle.path).predict(texts)
    return [
        {
            "text": text,
            "label": prediction.label,
            "score": pytest.approx(prediction.score, abs=1e-3),
            "review": prediction.review,
            "probabilities": pytest.approx(prediction.probabilities, abs=1e-3),
        }
        for text, prediction in zip(texts, predictions, strict=True)
    ]
