"""Corrections of a command line that cannot be parsed: other words for newsbert's commands and options.

The words are those of earlier revisions, of transformers' scripts, and of docker, kubectl and MLflow.
"""

import difflib
import shlex
import sys
from typing import Any

from newsbert.errors import UsageError

_SIMILARITY = 0.7
"""Minimum similarity, from 0 to 1, of a misspelled option to a real one."""

_COMMANDS = {
    "newsbert": {
        "archive": "newsbert export archive",
        "bench": "newsbert benchmark",
        "build": "newsbert build-image",
        "classify": "newsbert predict",
        "dashboard": "newsbert export dashboard",
        "deliver": "newsbert pipeline",
        "eval": "newsbert evaluate",
        "fine-tune": "newsbert train",
        "finetune": "newsbert train",
        "fit": "newsbert train",
        "infer": "newsbert predict",
        "inspect": "newsbert inspect-image",
        "kubernetes": "newsbert export kubernetes",
        "list": "newsbert models",
        "logs": "newsbert serve status",
        "ls": "newsbert models",
        "openapi": "newsbert export openapi",
        "ps": "newsbert serve status",
        "push": "newsbert build-image --push",
        "runtimes": "newsbert benchmark",
        "start": "newsbert serve locally",
        "status": "newsbert serve status",
        "stop": "newsbert serve stop",
        "test": "newsbert evaluate",
        "ui": "mlflow ui --backend-store-uri sqlite:///mlflow.db",
        "version": "newsbert --version",
    },
    "newsbert config": {"list": "newsbert config", "show": "newsbert config"},
    "newsbert serve": {
        "dashboard": "newsbert export dashboard",
        "down": "newsbert serve stop",
        "kubernetes": "newsbert export kubernetes",
        "list": "newsbert serve status",
        "logs": "newsbert serve status",
        "openapi": "newsbert export openapi",
        "ps": "newsbert serve status",
        "start": "newsbert serve locally",
        "up": "newsbert serve locally",
    },
    "newsbert tracking": {
        "list": "newsbert tracking status",
        "ps": "newsbert tracking status",
        "run": "newsbert tracking up",
        "server": "newsbert tracking up",
        "start": "newsbert tracking up",
        "stop": "newsbert tracking down",
    },
}
"""Commands by the group in which people look for them and the word that they type."""

_ROWS = ("--data", "--file", "--texts", "data")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "--against": ("--compare-to",),
    "--background": ("--detach",),
    "--bill": ("--sbom",),
    "--bind": ("--host",),
    "--data": _ROWS,
    "--dataset": _ROWS,
    "--dataset-name": _ROWS,
    "--drain": ("--drain-s",),
    "--env": ("--to",),
    "--environment": ("--to",),
    "--experiment-name": ("--experiment",),
    "--file": _ROWS,
    "--image": ("image",),
    "--input": _ROWS,
    "--input-file": _ROWS,
    "--lr": ("--learning-rate",),
    "--max-epochs": ("--epochs",),
    "--max-samples": ("--max-train-samples",),
    "--max-seq-length": ("--max-length",),
    "--max-train-steps": ("--max-steps",),
    "--model": ("model", "image", "--base-model"),
    "--model-name-or-path": ("--base-model",),
    "--model-save-path": ("--output-dir",),
    "--name": ("--model-name",),
    "--num-epochs": ("--epochs",),
    "--num-samples": ("--max-train-samples",),
    "--num-train-epochs": ("--epochs",),
    "--out": ("--output", "--output-dir"),
    "--output": ("--output-dir",),
    "--output-dir": ("--output",),
    "--output-file": ("--output",),
    "--per-device-train-batch-size": ("--batch-size",),
    "--registered-model-name": ("--model-name",),
    "--review-below": ("--review-threshold",),
    "--review-precision": ("--review-target-accuracy",),
    "--run": ("run",),
    "--run-id": ("run",),
    "--samples": ("--max-train-samples",),
    "--seq-length": ("--max-length",),
    "--text": ("text", "texts"),
    "--texts": ("texts", "--file", "--data"),
    "--threshold": ("--review-threshold",),
    "--timeout": ("--timeout-s",),
    "--token-expiry": ("--token-expiry-min",),
    "--train-batch-size": ("--batch-size",),
    "--train-file": _ROWS,
    "--verbose": ("--debug",),
    "--workers": ("--ray-workers",),
    "-m": ("model", "image", "--base-model"),
    "-v": ("--debug",),
}
"""Options (`--epochs`) and arguments (`model`) by the option that people type; a command's first is meant."""

_REMOVED_OPTIONS = {
    "--device": "a GPU is used where PyTorch finds one; CUDA_VISIBLE_DEVICES selects it",
    "--gpu": "a GPU is used where PyTorch finds one; CUDA_VISIBLE_DEVICES selects it",
    "--save-model": "each model is saved, and logged to MLflow",
    "--vocab-file": "the vocabulary is the encoder's: --base-model",
    "--weight-decay": "it is fixed",
}


def correct(error: Any) -> UsageError | None:
    """Return the error with the line to type, for a call that has another word for a command or an option."""
    if error.ctx is None:
        return None
    return _correct_option(error) or _correct_command(error)


def normalize_option(word: str) -> str:
    """Return the option in a word of the command line, with hyphens: `--learning-rate` of `--learning_rate=2e-5`."""
    return word.partition("=")[0].replace("_", "-")


def _correct_option(error: Any) -> UsageError | None:
    name = normalize_option(str(getattr(error, "option_name", "")))
    if not name.startswith("-"):
        return None
    command = error.ctx.command_path
    typed = next((word.partition("=")[0] for word in sys.argv if normalize_option(word) == name), name)
    params = error.ctx.command.params
    options = [flag for param in params for flag in param.opts if flag.startswith("-")]
    arguments = {param.name for param in params} if not hasattr(error.ctx.command, "commands") else set()
    for new in _OPTIONS.get(name, ()):
        if new in options:
            return UsageError(f"there is no option {typed}: it is {new} here", _replace(name, new))
        if new in arguments and f"--{new}" not in options:
            return UsageError(f"there is no option {typed}: it is an argument here", _replace(name, ""))
    if name in _REMOVED_OPTIONS and name not in options:
        return UsageError(f"there is no option {typed}: {_REMOVED_OPTIONS[name]}", f"{command} --help")
    similar = {option.lstrip("-"): option for option in options if option not in {"--help", "-h"}}
    match = difflib.get_close_matches(name.lstrip("-"), similar, 1, _SIMILARITY) if name.startswith("--") else []
    if match:
        new = similar[match[0]]
        return UsageError(f"there is no option {typed}: did you mean {new}?", _replace(name, new))
    if hasattr(error.ctx.command, "commands"):
        return None
    return UsageError(f"there is no option {typed}", f"{command} --help")


def _replace(name: str, new: str) -> str:
    """Return the command line with another name of an option, or with the option's value alone if `new` is empty."""
    words = []
    for word in sys.argv[1:]:
        if normalize_option(word) != name:
            words.append(word)
        elif new:
            words.append(new + word[len(name) :])
        elif "=" in word:
            words.append(word.partition("=")[2])
    return shlex.join(["newsbert", *words])


def _correct_command(error: Any) -> UsageError | None:
    words = sys.argv[1:]
    group = error.ctx.command_path
    depth = len(group.split()) - 1
    if depth >= len(words):
        return None
    word, rest = words[depth], words[depth + 1 :]
    message = f"there is no command '{group} {word}'"
    command = _COMMANDS.get(group, {}).get(word)
    if command is not None:
        return UsageError(message, _join(command, rest))
    commands = getattr(error.ctx.command, "commands", {})
    if not commands or word in commands:
        return None
    match = difflib.get_close_matches(word, commands, 1)
    if match:
        return UsageError(message, _join(f"{group} {match[0]}", rest))
    if group == "newsbert serve":
        # Where a model or an option stands, `serve locally` is meant.
        message = f"there is no option {word}" if word.startswith("-") else message
        return UsageError(message, _join("newsbert serve locally", words[depth:]))
    return None


def _join(command: str, rest: list[str]) -> str:
    return shlex.join([*shlex.split(command), *rest])
