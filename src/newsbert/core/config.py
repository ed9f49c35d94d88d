"""Resolution of settings.

A value comes from the flag, else from the environment, else from `newsbert.toml` in the working directory, else it is
the default. Only this module reads settings from the environment or from that file.
"""

import dataclasses
import os
import re
import tomllib
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from newsbert.core.settings import (
    TARGETS,
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

CONFIG_FILE = "newsbert.toml"
_SECTIONS: dict[type, str] = {
    TrackingSettings: "",
    TrainSettings: "train",
    ServeSettings: "serve",
    ImageSettings: "image",
    KubernetesSettings: "kubernetes",
    RaySettings: "ray",
    TrackingServerSettings: "tracking",
}
_ENVIRONMENTS = "environments"
"""The table that contains the environments' tables, by name."""
_MODEL_NAME_KEY = "model_name"
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
    table = _SECTIONS[section]
    return _merge(section, table, _read_file().get(table, {}) if table else _read_file(), flags)


def environments() -> dict[str, EnvironmentSettings]:
    """Return the deployment environments in `newsbert.toml`, by name.

    Raises:
        UsageError: If a value has the wrong type, or the file has unknown keys or cannot be read.
    """
    return {
        name: _merge(_get_class(environment), f"{_ENVIRONMENTS}_{name}".replace("-", "_"), environment, {})
        for name, environment in _read_file().get(_ENVIRONMENTS, {}).items()
    }


def _get_class(environment: Mapping[str, Any]) -> type[EnvironmentSettings]:
    return TARGETS[environment.get("target", "host")]


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
    content = _read_file()
    model_name_origins = [
        *(name for name in ("NEWSBERT_MODEL_NAME",) if os.environ.get(name)),
        *([CONFIG_FILE] if _MODEL_NAME_KEY in content else []),
    ]
    sections = [(section, table, content.get(table, {}) if table else content) for section, table in _SECTIONS.items()]
    for name, environment in content.get(_ENVIRONMENTS, {}).items():
        sections.append((_get_class(environment), f"{_ENVIRONMENTS}.{name}", environment))
    for section, table, from_file in sections:
        prefix = table.replace(".", "_").replace("-", "_")
        values = _merge(section, prefix, from_file, {})
        origins = {
            name: origin.removeprefix(_VARIABLE).partition(", key ")[0]
            for name, (_, origin) in _find_explicit_values(section, prefix, from_file, {}).items()
        }
        for setting in dataclasses.fields(section):
            value = _mask_passwords(getattr(values, setting.name))
            yield Resolved(table, setting.name, value, origins.get(setting.name))
        if not table:
            yield Resolved(table, _MODEL_NAME_KEY, model_name(), next(iter(model_name_origins), None))


def _mask_passwords(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_mask_passwords, value))
    return mask_credentials(value) if isinstance(value, str) else value


def _merge(section: type[Settings], table: str, from_file: dict[str, Any], flags: dict[str, Any]) -> Settings:
    hints = typing.get_type_hints(section)
    settings = {setting.name: setting.metadata for setting in dataclasses.fields(section)}
    values: dict[str, Any] = {}
    for name, (value, origin) in _find_explicit_values(section, table, from_file, flags).items():
        values[name] = _convert(value, hints[name], origin)
        _check_range(values[name], settings[name]["ge"], settings[name]["le"], origin)
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
            origin, value = f"{CONFIG_FILE}, key {name!r}", from_file[name]
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
    value = flag or os.environ.get("NEWSBERT_MODEL_NAME") or _read_file().get(_MODEL_NAME_KEY)
    return None if value is None else str(value)


def trusted_keys() -> tuple[Path, ...]:
    """Return the files of the public keys, one of which must have signed a model; empty if all models are loaded.

    Raises:
        UsageError: If the setting names no file.
    """
    value, origin = _find_explicit_values(TrackingSettings, "", _read_file(), {}).get("trusted_keys", ([], ""))
    if value == []:
        return ()
    files = _convert(value, tuple[str, ...], origin)
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


def served_review_threshold() -> float | None:
    """Return the threshold that replaces the model's in a worker: `NEWSBERT_SERVE_REVIEW_THRESHOLD`, if it is set.

    Raises:
        UsageError: If the value is not a valid threshold.
    """
    variable = "NEWSBERT_SERVE_REVIEW_THRESHOLD"
    if not os.environ.get(variable):
        return None
    below: float = _convert(os.environ[variable], float, f"the environment variable {variable}")
    _check_range(below, 0, 1, f"the environment variable {variable}")
    return below


def _read_file() -> dict[str, Any]:
    """Read `newsbert.toml`; return an empty table if it does not exist.

    Raises:
        UsageError: If it is not TOML, or has an unknown key or table.
    """
    path = Path(CONFIG_FILE)
    try:
        if not path.is_file():
            return {}
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{CONFIG_FILE} cannot be read: {error.strerror}", "check the rights: ls -la .") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{CONFIG_FILE} cannot be read: {error}", f"mend or remove {path.resolve()}") from error
    for section, table in _SECTIONS.items():
        known = _list_keys(section)
        if not table:
            known |= {*filter(None, _SECTIONS.values()), _ENVIRONMENTS, _MODEL_NAME_KEY}
        _check_keys(f"[{table}]" if table else "the top level", _get_table(content, table) if table else content, known)
    for name, environment in _get_table(content, _ENVIRONMENTS).items():
        where = f"[{_ENVIRONMENTS}.{name}]"
        if not isinstance(environment, dict) or not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
            raise UsageError(
                f"{CONFIG_FILE}: {name!r} in [{_ENVIRONMENTS}] cannot be",
                f"write [{_ENVIRONMENTS}.NAME], a name of lower-case letters, digits and -, and its keys below it",
            )
        if environment.get("target", "host") not in list(TARGETS):
            raise UsageError(
                f"{CONFIG_FILE}: target {environment['target']!r} of {where} cannot be",
                f"give one of {', '.join(TARGETS)}",
            )
        _check_keys(where, environment, _list_keys(_get_class(environment)))
    return content


def _list_keys(section: type) -> set[str]:
    return {setting.name for setting in dataclasses.fields(section)}


def _get_table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a table of the file, or an empty one if it is missing.

    Raises:
        UsageError: If the name's value is not a table.
    """
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{CONFIG_FILE}: {name!r} must be a table", f"write [{name}] and its keys below it")
    return table


_RENAMED_KEYS = {
    "acceptance": "acceptance_data",
    "clients": "allowed_namespaces",
    "least_accuracy": "min_accuracy",
    "lost_s": "unresponsive_timeout_s",
    "output": "output_dir",
    "queue_ms": "target_queue_ms",
    "review_below": "review_threshold",
    "review_precision": "review_target_accuracy",
    "samples": "max_train_samples",
}
"""Old names of keys, and their names now."""


def _check_keys(where: str, keys: Mapping[str, Any], known: Collection[str]) -> None:
    for key in keys:
        if key not in known:
            names = ", ".join(sorted(known))
            new = _RENAMED_KEYS.get(key)
            hint = f"it is now {new}" if new in known else f"the keys there are: {names}"
            raise UsageError(f"{CONFIG_FILE}: unknown key {key!r} in {where}", hint)


def _convert(value: Any, hint: Any, origin: str) -> Any:
    """Convert the value of a flag, a variable or the file to the setting's type.

    Raises:
        UsageError: If the conversion fails.
    """
    if isinstance(hint, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise UsageError(f"{origin}: {value!r} is not a list of texts", "give a value of that kind")
        return tuple(str(part).strip() for part in parts if str(part).strip())
    if hint is bool:
        known = {"1": True, "true": True, "0": False, "false": False}
        result = value if isinstance(value, bool) else known.get(value.lower()) if isinstance(value, str) else None
        if result is None:
            raise UsageError(f"{origin}: {value!r} is neither yes nor no", "give 1 or true, 0 or false")
        return result
    if isinstance(value, bool | list | dict) or (hint is int and isinstance(value, float) and not value.is_integer()):
        raise UsageError(f"{origin}: {value!r} is not {_TYPE_NAMES[hint]}", "give a value of that kind")
    try:
        return hint(value)
    except (TypeError, ValueError):
        raise UsageError(f"{origin}: {value!r} is not {_TYPE_NAMES[hint]}", "give a value of that kind") from None


def _check_range(value: Any, ge: float | None, le: float | None, origin: str) -> None:
    """Reject a number that is outside the setting's range, or is NaN.

    Raises:
        UsageError: With the range.
    """
    if ge is None or (value >= ge and (le is None or value <= le)):
        return
    expected = f"{ge:g} or more" if le is None else f"from {ge:g} to {le:.10g}"
    raise UsageError(f"{origin}: {value:.15g} cannot be", f"give a number that is {expected}")


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text"}
