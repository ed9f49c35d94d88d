"""Where the values of settings come from.

A value is taken from the flag, else from the environment, else from `newsbert.toml` in the working directory, else it
is the default. This is the only module that reads the environment or that file.
"""

import base64
import contextlib
import dataclasses
import os
import re
import secrets
import tomllib
import types
import typing
import urllib.parse
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from newsbert.core import identifiers
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
from newsbert.core.uris import mask_credentials, without_credentials
from newsbert.errors import UsageError

if typing.TYPE_CHECKING:
    import ssl

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
_CONTAINER_PREFIXES = ("NEWSBERT_TRAIN_", "MLFLOW_", "HF_", "AWS_", "AZURE_", "GOOGLE_")
_CONTAINER_NAMES = (
    "API_ENDPOINT_OVERRIDE",
    "CURL_CA_BUNDLE",
    "GCE_METADATA_HOST",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "MSI_ENDPOINT",
    "NO_GCE_CHECK",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "STORAGE_EMULATOR_HOST",
    "NEWSBERT_EXPERIMENT",
    "NEWSBERT_MODEL_NAME",
    "NEWSBERT_REGISTRY_URI",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "NO_COLOR",
)
_CONTAINER_FILES = {
    "GOOGLE_APPLICATION_CREDENTIALS": False,
    "AWS_SHARED_CREDENTIALS_FILE": False,
    "AWS_CONFIG_FILE": False,
    "AWS_WEB_IDENTITY_TOKEN_FILE": False,
    "AWS_CA_BUNDLE": False,
    "AZURE_CLIENT_CERTIFICATE_PATH": False,
    "AZURE_FEDERATED_TOKEN_FILE": False,
    "CURL_CA_BUNDLE": False,
    "REQUESTS_CA_BUNDLE": False,
    "SSL_CERT_FILE": False,
    "MLFLOW_TRACKING_SERVER_CERT_PATH": False,
    "MLFLOW_TRACKING_CLIENT_CERT_PATH": False,
    "HF_HOME": True,
}
"""Variables that name files, and whether those are written to."""
_HOME_FILES = {
    "GOOGLE_APPLICATION_CREDENTIALS": ".config/gcloud/application_default_credentials.json",
    "AWS_SHARED_CREDENTIALS_FILE": ".aws/credentials",
    "AWS_CONFIG_FILE": ".aws/config",
}
"""Where the clients of buckets look in the user's home if the variable is not set."""
_STORE_ENDPOINTS = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST",
                    "API_ENDPOINT_OVERRIDE")  # fmt: skip

TOKEN_VARIABLES = {"inference": "NEWSBERT_TOKEN", "management": "NEWSBERT_MANAGEMENT_TOKEN"}
"""The environment variables of TorchServe's tokens, by interface."""
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


def signing_passphrase() -> bytes | None:
    """Return the passphrase of the key that signs: `NEWSBERT_SIGNING_PASSPHRASE`, where it is set."""
    return os.environ.get("NEWSBERT_SIGNING_PASSPHRASE", "").encode() or None


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


def python_path() -> str:
    """`PYTHONPATH`, where it is set."""
    return os.environ.get("PYTHONPATH", "")


def java_home() -> str | None:
    """`JAVA_HOME`, where it is set."""
    return os.environ.get("JAVA_HOME") or None


def token(interface: str = "inference") -> str | None:
    """The token for TorchServe's `management` or `inference` interface, from its variable, where that is set."""
    return os.environ.get(TOKEN_VARIABLES[interface], "").strip() or None


def key_file() -> Path | None:
    """The file in which a TorchServe wrote its tokens: `NEWSBERT_KEY_FILE`, where it is set."""
    value = os.environ.get("NEWSBERT_KEY_FILE")
    return Path(value).expanduser() if value else None


def cache_dir() -> Path:
    """Where fetched models are kept, and what training prepares: `NEWSBERT_CACHE_DIR`, else the user's cache."""
    return _own_dir("NEWSBERT_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """Where running servers are noted: `NEWSBERT_STATE_DIR`, else the user's state directory."""
    return _own_dir("NEWSBERT_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def _own_dir(variable: str, base_variable: str, below_home: str) -> Path:
    """Return a directory of newsbert's; the user's home is looked for only where the environment names neither.

    Raises:
        UsageError: If the user has no home.
    """
    if os.environ.get(variable):
        return Path(os.environ[variable])
    if os.environ.get(base_variable):
        return Path(os.environ[base_variable]) / "newsbert"
    try:
        return Path.home() / below_home / "newsbert"
    except RuntimeError as error:  # a user of a container whom /etc/passwd does not know
        raise UsageError("this user has no home directory", f"set {variable}") from error


def activity_dir() -> Path | None:
    """Where a worker and its supervisor tell each other what they do; set by the supervisor."""
    directory = os.environ.get("NEWSBERT_ACTIVITY_DIR")
    return Path(directory) if directory else None


def server_dir() -> Path | None:
    """The directory of a worker's server, with its management socket; set by the supervisor."""
    directory = os.environ.get("NEWSBERT_SERVER_DIR")
    return Path(directory) if directory else None


def metrics_dir() -> Path | None:
    """Where a worker counts for its server's metrics; set by the supervisor."""
    directory = os.environ.get("NEWSBERT_METRICS_DIR")
    return Path(directory) if directory else None


def share_counts(directory: Path) -> None:
    """Have Prometheus's library keep the counts of this process there; it knows no other way to be told where."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)


def run_dir() -> Path | None:
    """A server's directory, where one is set: `NEWSBERT_SERVE_RUN_DIR` or `NEWSBERT_RUN_DIR`."""
    directory = os.environ.get("NEWSBERT_SERVE_RUN_DIR") or os.environ.get("NEWSBERT_RUN_DIR")
    return Path(directory) if directory else None


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


def mlflow_run_id() -> str | None:
    """Return the run in which `mlflow run` has started this process, if it has.

    Raises:
        UsageError: If the variable holds no run's id.
    """
    text = os.environ.get("MLFLOW_RUN_ID")
    return identifiers.parse_run_id(text, "MLFLOW_RUN_ID", UsageError) if text else None


def quiet_mlflow() -> None:
    """Keep MLflow from reporting to its makers and from printing, unless the user has said otherwise."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # A server that fails is to be told of in seconds; MLflow's own defaults are seven tries of two minutes each.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")


def tracking_credentials(uri: str) -> str | None:
    """By which of them a tracking server knows who asks, in words; nothing if by none."""
    if os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return f"the password in MLFLOW_TRACKING_PASSWORD for {os.environ['MLFLOW_TRACKING_USERNAME']}"
    if os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return "the token in MLFLOW_TRACKING_TOKEN"
    return "the name and the password in its address" if "@" in uri.partition("://")[2] else None


def tracking_authorization(uri: str) -> tuple[str, str | None]:
    """A tracking server's address, without a name in it, and the header by which it knows who asks."""
    parts = urllib.parse.urlsplit(uri)
    address = without_credentials(uri).rstrip("/")
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or urllib.parse.unquote(parts.username or "")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or urllib.parse.unquote(parts.password or "")
    if user:
        return address, f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return address, f"Bearer {token}" if token else None


def google_storage_emulated() -> bool:
    """Whether buckets of Google's are an emulator's, which asks nobody who he is."""
    return bool(os.environ.get("STORAGE_EMULATOR_HOST"))


def has_azure_key() -> bool:
    """Whether the key of an account of Azure's is in the environment; else its client looks for a login."""
    return any(name in os.environ for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCESS_KEY"))


def point_mlflow_at_accounts(file: Path, secret_key: str) -> None:
    """Tell MLflow where its settings of accounts are; its module reads them when it is imported."""
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(file)
    os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] = secret_key


def limit_spinning() -> None:
    """Limit how long OpenMP's threads wait for one another in a loop, unless the user sets that.

    GNU's OpenMP takes 300,000 turns before a thread sleeps. On a machine that has other work these take the cores from
    the threads that are waited for. `benchmarks/spinning.py` compares both, alone and beside other processes.
    Source: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def quiet_onnxruntime() -> None:
    """Keep ONNX Runtime from reporting to its makers, unless the user has said otherwise."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def torchrun_rank() -> int | None:
    """The number of this process among those that torchrun has started; nothing if it is none of them."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return int(os.environ["RANK"])


def quiet_ray() -> None:
    """Keep Ray from reporting to its makers and from printing, unless the user has said otherwise."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@contextlib.contextmanager
def ray_token() -> Iterator[None]:
    """Set a new token for Ray, which the processes that Ray starts in the block inherit."""
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def for_container() -> tuple[dict[str, str], dict[Path, bool]]:
    """What a trainer container gets of this environment, and the files named there that it must see (true: to write).

    It is given when the container runs and is in no image: the settings of newsbert, MLflow and the Hub, and the
    credentials of the tracking server and its bucket.
    """
    given = {name: value for name, value in os.environ.items() if name.startswith(_CONTAINER_PREFIXES)}
    given |= {name: os.environ[name] for name in _CONTAINER_NAMES if name in os.environ}
    files = {}
    with contextlib.suppress(OSError, RuntimeError):  # nobody's home, or one that cannot be looked at
        for name, path in _HOME_FILES.items():
            if name not in given and Path.home().joinpath(path).is_file():
                given[name] = str(Path.home() / path)
    for name, write in _CONTAINER_FILES.items():
        if name in given and Path(given[name]).exists():
            given[name] = str(Path(given[name]).resolve())
            files[Path(given[name])] = write
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or str(os.getuid())
    # The caller has no entry in the image's /etc/passwd, where Python would otherwise look for a name and a home.
    return {**given, "HOME": "/tmp", "USER": user, "LOGNAME": user}, files  # noqa: S108


def store_hosts() -> list[str]:
    """The hosts of the artifact stores whose addresses are in the environment."""
    azure = re.findall(r"(?:^|;)BlobEndpoint=([^;]+)", os.environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    hosts = []
    for address in [*(os.environ.get(name, "") for name in _STORE_ENDPOINTS), *azure]:
        with contextlib.suppress(ValueError):
            hosts.append(urllib.parse.urlsplit(address).hostname or "")
    return list(filter(None, hosts))


def tracking_tls() -> "ssl.SSLContext | None":
    """Which certificates of a tracking server are good, where MLflow's own variables say it.

    Raises:
        OSError: If the file that one names cannot be read.
    """
    insecure = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in {"true", "1"}
    where = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    if not (insecure or where):
        return None
    import ssl

    if insecure:
        return ssl._create_unverified_context()  # noqa: S323 - as was asked for, and as MLflow does
    directory = Path(where or "").is_dir()
    return ssl.create_default_context(cafile=None if directory else where, capath=where if directory else None)


def further_origins() -> list[str]:
    """Where pages may come from that ask a tracking server, besides its own: MLflow's own variable."""
    return list(filter(None, os.environ.get("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", "").split(",")))


def child_environment(**extra: str) -> dict[str, str]:
    """Return the environment for a program that newsbert starts: this one's, and what `extra` adds or replaces.

    Python in it, and in what that starts, imports nothing from its working directory: `rich.py` there would be run. It
    trusts the same keys, though neither `newsbert.toml` nor relative paths mean the same to it.
    """
    keys = ",".join(map(str, trusted_keys()))
    trusted = {"NEWSBERT_TRUSTED_KEYS": keys} if keys else {}
    return {**os.environ, "PYTHONSAFEPATH": "1", **trusted, **extra}


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
