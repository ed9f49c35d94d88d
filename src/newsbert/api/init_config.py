"""`newsbert.toml` as `newsbert init` writes it: what was found out about the rows, and all else as comments."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from newsbert.core import private_files
from newsbert.core.config import CONFIG_FILE
from newsbert.core.settings import ImageSettings, ServeSettings, TrackingSettings, TrainSettings
from newsbert.data import profile
from newsbert.data.profile import DatasetProfile
from newsbert.errors import NewsbertError, UsageError
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training import base_model

_NO_LIMIT = 100_000
_HEAD = f"""\
# {CONFIG_FILE}: settings of the newsbert commands that are called in this directory.
# An option of a command goes before a line here, and so does an environment variable: newsbert config show tells which
# value holds, and where it comes from. Lines behind a # are the defaults.
"""
_TAIL = """
# Further tables: [environments.NAME], where newsbert deploy puts models; [kubernetes]; [tracking], the server of
# newsbert tracking up; [ray]. docs/configuration.md has their keys.
"""


def survey(
    data: str, labels: Sequence[str] = (), text_column: str | None = None, label_column: str | None = None
) -> DatasetProfile:
    """Look at rows, with the tokenizer of the default encoder; see `data.profile.survey`.

    Raises:
        NewsbertError: If they cannot be read, or trained on.
    """
    return profile.profile_dataset(data, _count_tokens, labels, text_column, label_column)


def _count_tokens(texts: list[str]) -> list[int]:
    encoder = base_model.find(TrainSettings.base_model)
    tokenizer = SequenceTokenizer.load(encoder.path / "tokenizer.json", _NO_LIMIT, pad_id=0)
    return [len(ids) for ids in tokenizer.encode(texts)]


def write(
    survey: DatasetProfile, model_name: str, file: Path, labels: tuple[str, ...] = (), *, force: bool = False
) -> None:
    """Write the file, whole or not at all.

    Args:
        survey: What the rows are like.
        model_name: Of the registered model.
        file: Where.
        labels: Names of integer labels, where they were given.
        force: Whether to write over one that is there.

    Raises:
        UsageError: If there is one.
        NewsbertError: If it cannot be written.
    """
    check_absent(file, force=force)
    try:
        private_files.replace(file, text(survey, model_name, labels))
    except OSError as error:
        raise NewsbertError(f"{file} cannot be written: {error.strerror}", "check the directory's rights") from error


def check_absent(file: Path, *, force: bool) -> None:
    """Refuse to write over a file.

    Raises:
        UsageError: If there is one, and it is not forced.
    """
    if file.exists() and not force:
        raise UsageError(f"there is a {file} already", "the same command with --force writes over it")


def text(survey: DatasetProfile, model_name: str, labels: tuple[str, ...] = ()) -> str:
    """The file's content.

    Args:
        survey: What the rows are like.
        model_name: Of the registered model.
        labels: Names of integer labels, where they were given.
    """
    counts = [f"{name}: {', '.join(f'{n} {label}' for label, n in each.items())}" for name, each in survey.rows.items()]
    chosen: dict[str, Any] = {"data": survey.data, "labels": labels or None}
    chosen |= {"text_column": survey.text_column, "label_column": survey.label_column}
    if survey.max_length != TrainSettings.max_length:
        chosen["max_length"] = survey.max_length
    parts = [
        _HEAD,
        _section(TrackingSettings, {}),
        f"# Name of the registered model\nmodel_name = {_value(model_name)}\n",
        "[train]",
        *(f"# Rows of {each}" for each in counts),
        f"# Tokens: half of the texts have at most {survey.tokens['p50']}, 95% at most {survey.tokens['p95']}, the"
        f" longest {survey.tokens['most']}",
        _section(TrainSettings, chosen),
        "[serve]",
        _section(ServeSettings, {}),
        "[image]",
        _section(ImageSettings, {}),
    ]
    return "\n".join(parts) + _TAIL


def suggested_name(data: str) -> str:
    """A name for a registered model, after its data."""
    stem = Path(data).name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-") or "model"


def _section(section: type, chosen: dict[str, Any]) -> str:
    """A table's lines: each setting below what it means, behind a # where it is not chosen."""
    lines = []
    for setting in dataclasses.fields(section):
        value = chosen.get(setting.name)
        default = "" if setting.default is None else f" {_value(setting.default)}"
        line = f"# {setting.name} ={default}" if value is None else f"{setting.name} = {_value(value)}"
        lines += [f"# {setting.metadata['help']}", line]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """TOML of a value: JSON's texts, numbers, lists, true and false are TOML's too."""
    if isinstance(value, float) and value.is_integer():
        return f"{value:.1f}"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
