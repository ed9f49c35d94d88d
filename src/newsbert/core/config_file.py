"""The file `newsbert.toml`: its tables, and the keys that they may have."""

import dataclasses
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

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
from newsbert.errors import UsageError

CONFIG_FILE = "newsbert.toml"
SECTIONS: dict[type, str] = {
    TrackingSettings: "",
    TrainSettings: "train",
    ServeSettings: "serve",
    ImageSettings: "image",
    KubernetesSettings: "kubernetes",
    RaySettings: "ray",
    TrackingServerSettings: "tracking",
}
"""Settings classes, and their tables in the file."""
ENVIRONMENTS = "environments"
"""The table that contains the environments' tables, by name."""
MODEL_NAME_KEY = "model_name"
SHARED_KEYS = frozenset({"server"})
"""Keys at the top level that are settings of several tables."""

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


def read() -> dict[str, Any]:
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
    for key in SHARED_KEYS & content.keys():
        if isinstance(content[key], dict):
            raise UsageError(f"{CONFIG_FILE}: {key!r} cannot be a table", f'write {key} = "…" above the first table')
    for section, table in SECTIONS.items():
        known = _list_keys(section)
        if not table:
            known |= {*filter(None, SECTIONS.values()), ENVIRONMENTS, MODEL_NAME_KEY, *SHARED_KEYS}
        _check_keys(f"[{table}]" if table else "the top level", _get_table(content, table) if table else content, known)
    for name, environment in _get_table(content, ENVIRONMENTS).items():
        where = f"[{ENVIRONMENTS}.{name}]"
        if not isinstance(environment, dict) or not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
            raise UsageError(
                f"{CONFIG_FILE}: {name!r} in [{ENVIRONMENTS}] cannot be",
                f"write [{ENVIRONMENTS}.NAME], a name of lower-case letters, digits and -, and its keys below it",
            )
        if environment.get("target", "host") not in list(TARGETS):
            raise UsageError(
                f"{CONFIG_FILE}: target {environment['target']!r} of {where} cannot be",
                f"give one of {', '.join(TARGETS)}",
            )
        _check_keys(where, environment, _list_keys(get_class(environment)))
    return content


def get_class(environment: Mapping[str, Any]) -> type[EnvironmentSettings]:
    """Return the settings class of an environment's target."""
    return TARGETS[environment.get("target", "host")]


def get_values(content: Mapping[str, Any], section: type) -> dict[str, Any]:
    """Return the values that the file has for a section's settings."""
    table = SECTIONS[section]
    shared = {key: content[key] for key in SHARED_KEYS if key in content}
    return {**shared, **(content.get(table, {}) if table else content)}


def _list_keys(section: type) -> set[str]:
    return {setting.name for setting in dataclasses.fields(section)} - SHARED_KEYS


def _get_table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a table of the file, or an empty one if it is missing.

    Raises:
        UsageError: If the name's value is not a table.
    """
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise UsageError(f"{CONFIG_FILE}: {name!r} must be a table", f"write [{name}] and its keys below it")
    return table


def _check_keys(where: str, keys: Mapping[str, Any], known: Collection[str]) -> None:
    for key in keys:
        if key not in known:
            names = ", ".join(sorted(known))
            new = _RENAMED_KEYS.get(key)
            hint = f"it is now {new}" if new in known else f"the keys there are: {names}"
            if key in SHARED_KEYS:
                hint = "write it above the first table"
            raise UsageError(f"{CONFIG_FILE}: unknown key {key!r} in {where}", hint)
