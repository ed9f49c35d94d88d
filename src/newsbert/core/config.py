"""Resolution of settings.

A value comes from the flag, else from the environment, else from `newsbert.toml` in the working directory, else it is
the default. Only this module reads settings from the environment.
"""

import dataclasses
import os
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from newsbert.core import config_file, setting_values
from newsbert.core.settings import (
    EnvironmentSettings,
    ImageSettings,
    KubernetesSettings,
    RaySettings,
    ServeSettings,
    TrackingServerSettings,
    TrackingSettings,
    TrainSettings,
)
from newsbert.core.uris import mask_credentials
from newsbert.errors import UsageError

if typing.TYPE_CHECKING:
    pass

_VARIABLE = "the environment variable "

Settings = TypeVar(
    "Settings",
    TrackingSettings,
    TrainSettings,
    ServeSettings,
    ImageSettings,
    KubernetesSettings,
    RaySettings,
    TrackingServerSettings,
    EnvironmentSettings,
)


def resolve(section: type[Settings], **flags: Any) -> Settings:
    """Merge flag, environment, `newsbert.toml` and default into one frozen instance of `section`.

    Args:
        section: The settings class.
        flags: Values from the command line or the caller; `None` means not set.

    Raises:
        UsageError: If a value has the wrong type, or the file has unknown keys or cannot be read.
    """
    return _merge(section, config_file.SECTIONS[section], config_file.get_values(config_file.read(), section), flags)


def environments() -> dict[str, EnvironmentSettings]:
    """Return the deployment environments in `newsbert.toml`, by name.

    Raises:
        UsageError: If a value has the wrong type, or the file has unknown keys or cannot be read.
    """
    return {
        name: _merge(
            config_file.get_class(environment), f"{config_file.ENVIRONMENTS}_{name}".replace("-", "_"), environment, {}
        )
        for name, environment in config_file.read().get(config_file.ENVIRONMENTS, {}).items()
    }


@dataclass(frozen=True)
class Resolved:
    """A setting with its effective value.

    Attributes:
        table: Its table in `newsbert.toml`; empty at the top level.
        name: Its name.
        value: Its value, with the password in an address masked.
        origin: The environment variable or the file that sets it; `None` for a default.
    """

    table: str
    name: str
    value: Any
    origin: str | None


def resolved() -> Iterator[Resolved]:
    """Yield all settings of newsbert with their effective values, in the order of the file.

    Raises:
        UsageError: If a value has the wrong type, or the file has unknown keys or cannot be read.
    """
    content = config_file.read()
    model_name_origins = [
        *(name for name in ("NEWSBERT_MODEL_NAME",) if os.environ.get(name)),
        *([config_file.CONFIG_FILE] if config_file.MODEL_NAME_KEY in content else []),
    ]
    sections = [
        (section, table, config_file.get_values(content, section)) for section, table in config_file.SECTIONS.items()
    ]
    for name, environment in content.get(config_file.ENVIRONMENTS, {}).items():
        sections.append((config_file.get_class(environment), f"{config_file.ENVIRONMENTS}.{name}", environment))
    for section, table, from_file in sections:
        prefix = table.replace(".", "_").replace("-", "_")
        values = _merge(section, prefix, from_file, {})
        origins = {
            name: origin.removeprefix(_VARIABLE).partition(", key ")[0]
            for name, (_, origin) in _find_explicit_values(section, prefix, from_file, {}).items()
        }
        for setting in dataclasses.fields(section):
            if setting.name not in config_file.SHARED_KEYS:
                value = _mask_passwords(getattr(values, setting.name))
                yield Resolved(table, setting.name, value, origins.get(setting.name))
            elif section is ServeSettings:  # once, at the top level
                yield Resolved("", setting.name, getattr(values, setting.name), origins.get(setting.name))
        if not table:
            yield Resolved(table, config_file.MODEL_NAME_KEY, model_name(), next(iter(model_name_origins), None))


def _mask_passwords(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_mask_passwords, value))
    return mask_credentials(value) if isinstance(value, str) else value


def _merge(section: type[Settings], table: str, from_file: dict[str, Any], flags: dict[str, Any]) -> Settings:
    hints = typing.get_type_hints(section)
    settings = {setting.name: setting.metadata for setting in dataclasses.fields(section)}
    values: dict[str, Any] = {}
    for name, (value, origin) in _find_explicit_values(section, table, from_file, flags).items():
        values[name] = setting_values.convert(value, hints[name], origin)
        setting_values.check_range(values[name], settings[name]["ge"], settings[name]["le"], origin)
        choices = settings[name]["choices"]
        if choices and values[name] not in choices:
            raise UsageError(f"{origin}: {values[name]!r} cannot be", f"give one of {', '.join(choices)}")
    return section(**values)


def _find_explicit_values(
    section: type, table: str, from_file: dict[str, Any], flags: dict[str, Any]
) -> dict[str, tuple[Any, str]]:
    """Return the settings of a section that are not defaults, with their origins."""
    explicit: dict[str, tuple[Any, str]] = {}
    for setting in dataclasses.fields(section):
        name = setting.name
        variables = [f"NEWSBERT_{table}_{name}".upper().replace("__", "_"), setting.metadata["env"]]
        option = setting.metadata["option"] or f"--{name.replace('_', '-')}"
        origin, value = f"the option {option}", flags.get(name)
        for variable in filter(None, variables):
            if value is None and os.environ.get(variable):
                origin, value = f"{_VARIABLE}{variable}", os.environ[variable]
        if value is None and name in from_file:
            origin, value = f"{config_file.CONFIG_FILE}, key {name!r}", from_file[name]
        if value is not None:
            explicit[name] = value, origin
    return explicit


def resolve_shared(workers: int | None, ray_address: str | None) -> RaySettings:
    """Resolve the settings of work that may be divided among processes.

    Raises:
        UsageError: If a value is invalid, or there is an address without workers.
    """
    if ray_address is not None and workers is None:
        raise UsageError("--ray-address goes with --ray-workers", f"--ray-workers 2 --ray-address {ray_address}")
    return resolve(RaySettings, workers=workers, address=ray_address)


def model_name(flag: str | None = None) -> str | None:
    """Return the registered model's name: the flag, `NEWSBERT_MODEL_NAME`, the file's `model_name`, or else `None`."""
    value = flag or os.environ.get("NEWSBERT_MODEL_NAME") or config_file.read().get(config_file.MODEL_NAME_KEY)
    return None if value is None else str(value)


def trusted_keys() -> tuple[Path, ...]:
    """Return the files of the public keys, one of which must have signed a model; empty if all models are loaded.

    Raises:
        UsageError: If the setting names no file.
    """
    value, origin = _find_explicit_values(TrackingSettings, "", config_file.read(), {}).get("trusted_keys", ([], ""))
    if value == []:
        return ()
    files = setting_values.convert(value, tuple[str, ...], origin)
    if not files:  # a blank value is an error: its author intended to require a key
        raise UsageError(f"{origin}: {value!r} names no file", "name a file with a public key, or remove the setting")
    return tuple(Path(file) if file.startswith("~") else Path(file).absolute() for file in files)


def default_of(section: type, name: str) -> str:
    """Return the default of a setting as `--help` shows it."""
    default = next(setting.default for setting in dataclasses.fields(section) if setting.name == name)
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, float):
        return f"{default:g}"
    return ",".join(default) if isinstance(default, tuple) else "" if default is None else str(default)


def help_of(section: type, name: str) -> str:
    """Return the description of a setting as `--help` shows it."""
    return str(next(setting.metadata["help"] for setting in dataclasses.fields(section) if setting.name == name))


def served_cascade() -> str | None:
    """Return the setting that replaces the archive's in a worker: `NEWSBERT_SERVE_CASCADE`, if it is set."""
    return os.environ.get("NEWSBERT_SERVE_CASCADE") or None


def served_review_threshold() -> float | None:
    """Return the threshold that replaces the model's in a worker: `NEWSBERT_SERVE_REVIEW_THRESHOLD`, if it is set.

    Raises:
        UsageError: If the value is not a valid threshold.
    """
    variable = "NEWSBERT_SERVE_REVIEW_THRESHOLD"
    if not os.environ.get(variable):
        return None
    below: float = setting_values.convert(os.environ[variable], float, f"the environment variable {variable}")
    setting_values.check_range(below, 0, 1, f"the environment variable {variable}")
    return below
