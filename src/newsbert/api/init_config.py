"""Write `newsbert.toml` for `newsbert init`: settings that fit the rows, and all others as comments."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from newsbert.core import config, files
from newsbert.core.config_file import CONFIG_FILE, SHARED_KEYS
from newsbert.core.settings import TORCHSERVE, ImageSettings, ServeSettings, TrackingSettings, TrainSettings
from newsbert.data import profile
from newsbert.data.profile import DatasetProfile
from newsbert.errors import NewsbertError, UsageError
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training import base_model

_NO_LIMIT = 100_000
_HEAD = f"""\
# {CONFIG_FILE}: settings of the newsbert commands that are called in this directory.
# An option of a command goes before a line here, and so does an environment variable: newsbert config tells which
# value holds, and where it comes from. Lines behind a # are the defaults.
"""
_TAIL = """
# Further tables: [environments.NAME], where newsbert deploy puts models; [kubernetes]; [tracking], the server of
# newsbert tracking up; [ray]. docs/reference/configuration.md has their keys.
"""


def survey(
    data: str, labels: Sequence[str] = (), text_column: str | None = None, label_column: str | None = None
) -> DatasetProfile:
    """Profile rows with the tokenizer of the default encoder; see `data.profile.profile_dataset`.

    Raises:
        NewsbertError: If the rows cannot be read, or a model cannot be trained on them.
    """
    return profile.profile_dataset(data, _count_tokens, labels, text_column, label_column)


def _count_tokens(texts: list[str]) -> list[int]:
    encoder = base_model.find(TrainSettings.base_model)
    tokenizer = SequenceTokenizer.load(encoder.path / "tokenizer.json", _NO_LIMIT, pad_id=0)
    return [len(ids) for ids in tokenizer.encode(texts)]


def write(
    survey: DatasetProfile, model_name: str, file: Path, labels: tuple[str, ...] = (), *, force: bool = False
) -> None:
    """Write the file atomically.

    Args:
        survey: The profile of the rows.
        model_name: Name of the registered model.
        file: Path of the file.
        labels: Names of integer labels, if the user named them.
        force: Whether to overwrite an existing file.

    Raises:
        UsageError: If the file exists, and `force` is false.
        NewsbertError: If the file cannot be written.
    """
    check_absent(file, force=force)
    try:
        files.write_atomically(file, text(survey, model_name, labels))
    except OSError as error:
        raise NewsbertError(f"{file} cannot be written: {error.strerror}", "check the directory's rights") from error


def check_absent(file: Path, *, force: bool) -> None:
    """Refuse to overwrite a file.

    Raises:
        UsageError: If the file exists, and `force` is false.
    """
    if file.exists() and not force:
        raise UsageError(f"there is a {file} already", "the same command with --force writes over it")


def text(survey: DatasetProfile, model_name: str, labels: tuple[str, ...] = ()) -> str:
    """Return the file's content.

    Args:
        survey: The profile of the rows.
        model_name: Name of the registered model.
        labels: Names of integer labels, if the user named them.
    """
    counts = [
        f"{split}: {', '.join(f'{n} {label}' for label, n in label_counts.items())}"
        for split, label_counts in survey.rows.items()
    ]
    chosen: dict[str, Any] = {"data": survey.data, "labels": labels or None}
    chosen |= {"text_column": survey.text_column, "label_column": survey.label_column}
    if survey.max_length != TrainSettings.max_length:
        chosen["max_length"] = survey.max_length
    parts = [
        _HEAD,
        _format_section(TrackingSettings, {}),
        f"# Name of the registered model\nmodel_name = {_format_value(model_name)}\n",
        f"# {config.help_of(ServeSettings, 'server')}\n# server = {_format_value(TORCHSERVE)}\n",
        "[train]",
        *(f"# Rows of {line}" for line in counts),
        f"# Tokens: half of the texts have at most {survey.tokens['p50']}, 95% at most {survey.tokens['p95']}, the"
        f" longest {survey.tokens['most']}",
        _format_section(TrainSettings, chosen),
        "[serve]",
        _format_section(ServeSettings, {}),
        "[image]",
        _format_section(ImageSettings, {}),
    ]
    return "\n".join(parts) + _TAIL


def suggested_name(data: str) -> str:
    """Return a name for a registered model, derived from its data."""
    stem = Path(data).name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-") or "model"


def _format_section(section: type, chosen: dict[str, Any]) -> str:
    """Return a table's lines: every setting below its description, commented out unless it is in `chosen`."""
    lines = []
    for setting in dataclasses.fields(section):
        if setting.name in SHARED_KEYS:
            continue
        value = chosen.get(setting.name)
        default = "" if setting.default is None else f" {_format_value(setting.default)}"
        line = f"# {setting.name} ={default}" if value is None else f"{setting.name} = {_format_value(value)}"
        lines += [f"# {setting.metadata['help']}", line]
    return "\n".join(lines) + "\n"


def _format_value(value: Any) -> str:
    """Format a value as TOML: strings, numbers, lists and booleans in JSON are valid TOML."""
    if isinstance(value, float) and value.is_integer():
        return f"{value:.1f}"
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
