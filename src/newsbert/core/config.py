"""Where the values of settings come from.

A value is taken from the flag, else from the environment, else from `newsbert.toml` in the working directory, else it
is the default. This is the only module that reads the environment or that file.
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
"""The table of tables of environments, one for each name."""
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
    """Merge flag, environment, `newsbert.toml` and default into one frozen value of `section`.

    Args:
        section: The settings class.
        flags: Values from the command line or the caller; `None` means not given.

    Raises:
        UsageError: If a value has the wrong type, or the file has unknown keys or cannot be read.
    """
    table = _SECTIONS[section]
    return _merged(section, table, _read_file().get(table, {}) if table else _read_file(), flags)


def environments() -> dict[str, EnvironmentSettings]:
    """Where models are deployed to, by name, as `newsbert.toml` has them.

    Raises:
        UsageError: If a value has the wrong type, or the file has unknown keys or cannot be read.
    """
    return {
        name: _merged(_kind_of(found), f"{_ENVIRONMENTS}_{name}".replace("-", "_"), found, {})
        for name, found in _read_file().get(_ENVIRONMENTS, {}).items()
    }


def _kind_of(environment: Mapping[str, Any]) -> type[EnvironmentSettings]:
    return TARGETS[environment.get("target", "host")]


@dataclass(frozen=True)
class Resolved:
    """A setting as it holds here.

    Attributes:
        table: Its table of `newsbert.toml`; empty at the top.
        name: Its name.
        value: Its value, a password in an address left out.
        origin: The environment variable or the file that it comes from; nothing for a default.
    """

    table: str
    name: str
    value: Any
    origin: str | None


def resolved() -> Iterator[Resolved]:
    """All settings of newsbert as they hold here, in the order of the file.

    Raises:
        UsageError: If a value has the wrong type, or the file has unknown keys or cannot be read.
    """
    content = _read_file()
    model_name_from = [
        *(name for name in ("NEWSBERT_MODEL_NAME",) if os.environ.get(name)),
        *([CONFIG_FILE] if _MODEL_NAME_KEY in content else []),
    ]
    sections = [(section, table, content.get(table, {}) if table else content) for section, table in _SECTIONS.items()]
    for name, found in content.get(_ENVIRONMENTS, {}).items():
        sections.append((_kind_of(found), f"{_ENVIRONMENTS}.{name}", found))
    for section, table, from_file in sections:
        prefix = table.replace(".", "_").replace("-", "_")
        values = _merged(section, prefix, from_file, {})
        origins = {
            name: origin.removeprefix(_VARIABLE).partition(", key ")[0]
            for name, (_, origin) in _given(section, prefix, from_file, {}).items()
        }
        for setting in dataclasses.fields(section):
            value = _without_password(getattr(values, setting.name))
            yield Resolved(table, setting.name, value, origins.get(setting.name))
        if not table:
            yield Resolved(table, _MODEL_NAME_KEY, model_name(), next(iter(model_name_from), None))


def _without_password(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_without_password, value))
    return mask_credentials(value) if isinstance(value, str) else value


def _merged(section: type[Settings], table: str, from_file: dict[str, Any], flags: dict[str, Any]) -> Settings:
    hints = typing.get_type_hints(section)
    settings = {setting.name: setting.metadata for setting in dataclasses.fields(section)}
    values: dict[str, Any] = {}
    for name, (value, origin) in _given(section, table, from_file, flags).items():
        values[name] = _convert(value, hints[name], origin)
        _check_range(values[name], settings[name]["least"], settings[name]["most"], origin)
        choices = settings[name]["choices"]
        if choices and values[name] not in choices:
            raise UsageError(f"{origin}: {values[name]!r} cannot be", f"give one of {', '.join(choices)}")
    return section(**values)


def _given(section: type, table: str, from_file: dict[str, Any], flags: dict[str, Any]) -> dict[str, tuple[Any, str]]:
    """The settings of a section that are no defaults, and where each comes from."""
    found: dict[str, tuple[Any, str]] = {}
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
            found[name] = value, origin
    return found


def resolve_shared(workers: int | None, ray_address: str | None) -> RaySettings:
    """Resolve the settings of work that several processes may share.

    Raises:
        UsageError: If a value cannot be, or an address is given without workers.
    """
    if ray_address is not None and workers is None:
        raise UsageError("--ray-address goes with --workers", f"--workers 2 --ray-address {ray_address}")
    return resolve(RaySettings, workers=workers, address=ray_address)


def model_name(flag: str | None = None) -> str | None:
    """The registered model's name from the flag, `NEWSBERT_MODEL_NAME` or the file's `model_name`; else `None`."""
    value = flag or os.environ.get("NEWSBERT_MODEL_NAME") or _read_file().get(_MODEL_NAME_KEY)
    return None if value is None else str(value)


def trusted_keys() -> tuple[Path, ...]:
    """Return the files of the public keys of which one must have signed a model; none where all models are loaded.

    Raises:
        UsageError: If the setting names no file.
    """
    value, origin = _given(TrackingSettings, "", _read_file(), {}).get("trusted_keys", ([], ""))
    if value == []:
        return ()
    files = _convert(value, tuple[str, ...], origin)
    if not files:  # not as if there were none: who writes a blank there wants a key
        raise UsageError(f"{origin}: {value!r} names no file", "name a file with a public key, or remove the setting")
    return tuple(Path(file) if file.startswith("~") else Path(file).absolute() for file in files)


def default_of(section: type, name: str) -> str:
    """The default of a setting as `--help` shows it."""
    default = next(setting.default for setting in dataclasses.fields(section) if setting.name == name)
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, float):
        return f"{default:g}"
    return ",".join(default) if isinstance(default, tuple) else "" if default is None else str(default)


def help_of(section: type, name: str) -> str:
    """What a setting means, as `--help` shows it."""
    return str(next(setting.metadata["help"] for setting in dataclasses.fields(section) if setting.name == name))


def served_review_below() -> float | None:
    """The threshold that a worker takes instead of its model's: `NEWSBERT_SERVE_REVIEW_BELOW`, where it is set.

    Raises:
        UsageError: If it cannot be one.
    """
    variable = "NEWSBERT_SERVE_REVIEW_BELOW"
    if not os.environ.get(variable):
        return None
    below: float = _convert(os.environ[variable], float, f"the environment variable {variable}")
    _check_range(below, 0, 1, f"the environment variable {variable}")
    return below


def _read_file() -> dict[str, Any]:
    """Read `newsbert.toml`; an empty table where there is none.

    Raises:
        UsageError: If it is not TOML, or has a key or table that means nothing.
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
        known = _keys(section)
        if not table:
            known |= {*filter(None, _SECTIONS.values()), _ENVIRONMENTS, _MODEL_NAME_KEY}
        _check_keys(f"[{table}]" if table else "the top level", _table(content, table) if table else content, known)
    for name, found in _table(content, _ENVIRONMENTS).items():
        where = f"[{_ENVIRONMENTS}.{name}]"
        if not isinstance(found, dict) or not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
            raise UsageError(
                f"{CONFIG_FILE}: {name!r} in [{_ENVIRONMENTS}] cannot be",
                f"write [{_ENVIRONMENTS}.NAME], a name of lower-case letters, digits and -, and its keys below it",
            )
        if found.get("target", "host") not in list(TARGETS):
            raise UsageError(
                f"{CONFIG_FILE}: target {found['target']!r} of {where} cannot be", f"give one of {', '.join(TARGETS)}"
            )
        _check_keys(where, found, _keys(_kind_of(found)))
    return content


def _keys(section: type) -> set[str]:
    return {setting.name for setting in dataclasses.fields(section)}


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A table of the file; an empty one where it has none.

    Raises:
        UsageError: If it is something else.
    """
    found = content.get(name, {})
    if not isinstance(found, dict):
        raise UsageError(f"{CONFIG_FILE}: {name!r} must be a table", f"write [{name}] and its keys below it")
    return found


def _check_keys(where: str, keys: Mapping[str, Any], known: Collection[str]) -> None:
    for key in keys:
        if key not in known:
            names = ", ".join(sorted(known))
            raise UsageError(f"{CONFIG_FILE}: unknown key {key!r} in {where}", f"the keys there are: {names}")


def _convert(value: Any, hint: Any, origin: str) -> Any:
    """Turn a flag's, variable's or file's value into the setting's type.

    Raises:
        UsageError: If it cannot be one.
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
        found = value if isinstance(value, bool) else known.get(value.lower()) if isinstance(value, str) else None
        if found is None:
            raise UsageError(f"{origin}: {value!r} is neither yes nor no", "give 1 or true, 0 or false")
        return found
    if isinstance(value, bool | list | dict) or (hint is int and isinstance(value, float) and not value.is_integer()):
        raise UsageError(f"{origin}: {value!r} is not {_TYPE_NAMES[hint]}", "give a value of that kind")
    try:
        return hint(value)
    except (TypeError, ValueError):
        raise UsageError(f"{origin}: {value!r} is not {_TYPE_NAMES[hint]}", "give a value of that kind") from None


def _check_range(value: Any, least: float | None, most: float | None, origin: str) -> None:
    """Refuse a number that is out of its setting's range, or is none (NaN).

    Raises:
        UsageError: With the range.
    """
    if least is None or (value >= least and (most is None or value <= most)):
        return
    wanted = f"{least:g} or more" if most is None else f"from {least:g} to {most:.10g}"
    raise UsageError(f"{origin}: {value:.15g} cannot be", f"give a number that is {wanted}")


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text"}
