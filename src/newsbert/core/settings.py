"""Settings with their defaults and allowed values; `config.py` resolves the values."""

import math
from dataclasses import dataclass, field
from typing import Any

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"


def _setting(
    default: Any,
    help: str,
    env: str | None = None,
    ge: float | None = None,
    le: float | None = None,
    choices: tuple[str, ...] = (),
    option: str | None = None,
) -> Any:
    """Return the dataclass field of a setting.

    Args:
        default: Its default.
        help: Its description.
        env: The ecosystem's own variable for it, if there is one.
        ge: Its minimum.
        le: Its maximum.
        choices: Its allowed texts.
        option: Its option on the command line, if that has another name.
    """
    metadata = {"help": help, "env": env, "ge": ge, "le": le, "choices": choices, "option": option}
    return field(default=default, metadata=metadata)


TORCHSERVE, NATIVE = SERVERS = ("torchserve", "native")
"""The servers that can serve a model."""


def _server() -> Any:
    """Return the field of the setting that is the same for all commands: a top-level key of `newsbert.toml`."""
    return _setting(TORCHSERVE, "Server: torchserve, or native (newsbert's own)", "NEWSBERT_SERVER", choices=SERVERS)


@dataclass(frozen=True)
class MethodDefaults:
    """Defaults of a fine-tuning method.

    Few rows are read in smaller batches and more often: a new head learns little in a handful of steps. Many rows are
    read in larger batches, which take less time per row.

    Attributes:
        learning_rate: Peak learning rate, for batches of `BATCH_SIZE` rows and less.
        epochs: Number of epochs for many rows.
        min_steps: Minimum number of steps, for few rows.
        min_steps_per_epoch: Minimum number of steps of an epoch, down to `min_batch_size`.
        min_batch_size: Minimum batch size.
        max_batch_size: Maximum batch size.
    """

    learning_rate: float
    epochs: float = 5.0
    min_steps: int = 60
    min_steps_per_epoch: int = 8
    min_batch_size: int = 4
    max_batch_size: int = 32


BATCH_SIZE = 32
"""Default batch size, if rows are neither few nor many."""

MIN_STEPS_OF_LARGE_BATCHES = 150
"""Minimum number of steps per epoch with a batch larger than `BATCH_SIZE`."""

METHODS = {
    "full": MethodDefaults(1.5e-4, max_batch_size=64),
    "contrastive": MethodDefaults(4e-5, epochs=1.0, min_steps=20, min_steps_per_epoch=2, min_batch_size=16),
    "lora": MethodDefaults(1e-3),
    "head": MethodDefaults(3e-3),
}
"""The fine-tuning methods and their defaults."""

MAX_FEW_ROWS = 16
"""Maximum number of training rows per label, on average, that are few: `auto` is `contrastive`, without a companion.

See benchmarks/few_labels.py."""


@dataclass(frozen=True)
class TrackingSettings:
    """Locations of runs and models, and keys of trusted signers: top-level keys of `newsbert.toml`."""

    tracking_uri: str = _setting(DEFAULT_TRACKING_URI, "MLflow tracking server or database", "MLFLOW_TRACKING_URI")
    registry_uri: str | None = _setting(None, "MLflow registry, if not the tracking server", "MLFLOW_REGISTRY_URI")
    experiment: str = _setting("newsbert", "MLflow experiment", "MLFLOW_EXPERIMENT_NAME")
    trusted_keys: tuple[str, ...] = _setting(
        (), "Files of public keys, comma-separated: only models that one of them has signed are loaded"
    )


@dataclass(frozen=True)
class TrainSettings:
    """Settings of `newsbert train`: table `[train]`."""

    data: str = _setting("sample", "'sample', a file or directory of labelled rows, or a Hub data set")
    labels: tuple[str, ...] = _setting((), "Names of integer labels 0, 1, …, comma-separated")
    text_column: str | None = _setting(None, "Column of the text")
    label_column: str | None = _setting(None, "Column of the label")
    base_model: str = _setting("minilm", "'minilm' (bundled), a model directory, or a Hub name")
    epochs: float | None = _setting(
        None,
        f"Number of training epochs (default: {METHODS['full'].epochs:g}, or as many as make "
        f"{METHODS['full'].min_steps} steps)",
        ge=1e-6,
        le=10_000,
    )
    max_steps: int | None = _setting(None, "Maximum number of optimizer steps; overrides --epochs", ge=1)
    max_train_samples: int | None = _setting(None, "Maximum number of training examples", ge=1)
    batch_size: int | None = _setting(
        None,
        f"Batch size (default: {BATCH_SIZE}; with few rows 1/8 of them, at least {METHODS['full'].min_batch_size}; "
        f"with many rows 1/{MIN_STEPS_OF_LARGE_BATCHES} of them, at most {METHODS['full'].max_batch_size})",
        ge=1,
    )
    tune: str = _setting(
        "auto",
        "Fine-tuning method: full (all layers), contrastive (pairs of texts, for few rows), lora (adapters), head "
        f"(frozen encoder), or auto (contrastive for up to {MAX_FEW_ROWS} training rows per label, or else full)",
        choices=("auto", *METHODS),
    )
    lora_rank: int = _setting(16, "Rank of the adapters of --tune lora", ge=1, le=1024)
    precision: str = _setting(
        "auto",
        "Numeric precision of training: bf16, fp32, or auto (bf16 if a timed step is faster with it)",
        choices=("auto", "bf16", "fp32"),
    )
    learning_rate: float | None = _setting(
        None,
        "Peak learning rate (default: "
        f"{', '.join(f'{defaults.learning_rate:g} for {method}' for method, defaults in METHODS.items())}; for batches "
        f"of more than {BATCH_SIZE} rows times the square root of batch size / {BATCH_SIZE})",
        ge=1e-12,
        le=1,
    )
    max_length: int = _setting(
        128, "Maximum sequence length in tokens; longer texts are truncated, in training and in serving", ge=8
    )
    review_target_accuracy: float = _setting(
        0.95, "Target accuracy of the answers that are not flagged for review", ge=0, le=1
    )
    review_threshold: float | None = _setting(
        None,
        "Confidence threshold for review, below which answers are flagged; 0 flags none, 1 all (default: fitted)",
        ge=0,
        le=1,
    )
    companion: str = _setting(
        "linear",
        "Companion whose answers are mixed with the encoder's: linear (words and pairs of words, for more than "
        f"{MAX_FEW_ROWS} rows per label), or none",
        choices=("linear", "none"),
    )
    cascade_loss: float = _setting(
        0.3,
        "Points of accuracy that may be lost where the companion answers alone, as an upper 95% bound",
        ge=0,
        le=100,
    )
    unlabelled: str | None = _setting(None, "File of more texts without labels, for the companion to learn from")
    seed: int = _setting(42, "Random seed of splits, shuffling and initialization", ge=0, le=2**32 - 1)
    output_dir: str | None = _setting(None, "Directory for the bundle (default bundles/RUN_ID)")

    def choose_batch_size(self, num_rows: int) -> int:
        """Return the batch size, or its default for this number of training rows."""
        defaults = self._defaults
        usual = min(BATCH_SIZE, max(defaults.min_batch_size, num_rows // defaults.min_steps_per_epoch))
        large = min(defaults.max_batch_size, num_rows // MIN_STEPS_OF_LARGE_BATCHES)
        return self.batch_size or max(usual, large)

    def choose_epochs(self, num_rows: int) -> float:
        """Return the number of epochs, or its default for this number of training rows."""
        steps = math.ceil(num_rows / self.choose_batch_size(num_rows))
        return self.epochs or max(self._defaults.epochs, float(math.ceil(self._defaults.min_steps / steps)))

    def choose_learning_rate(self, num_rows: int) -> float:
        """Return the peak learning rate, or its default for the method and this number of training rows.

        With large batches the default grows with the square root of the batch size: https://arxiv.org/abs/2205.10287.
        """
        ratio = max(1.0, self.choose_batch_size(num_rows) / BATCH_SIZE)
        return self.learning_rate or self._defaults.learning_rate * math.sqrt(ratio)

    @property
    def _defaults(self) -> MethodDefaults:
        return METHODS["full" if self.tune == "auto" else self.tune]


@dataclass(frozen=True)
class ServeSettings:
    """Settings of `newsbert serve`: table `[serve]`."""

    server: str = _server()
    host: str = _setting("127.0.0.1", "Address the model answers on")
    port: int = _setting(8080, "Port the model answers on; 0 takes a free one", ge=0, le=65_535)
    runtime: str = _setting("auto", "Inference runtime; newsbert benchmark compares all")
    review_threshold: float | None = _setting(
        None, "Confidence threshold for review: answers below it are flagged (default: the model's)", ge=0, le=1
    )
    cascade: str = _setting(
        "auto",
        "Let the companion answer alone the texts of which it is sure: on, off, or auto (if training found that this "
        "costs little accuracy)",
        choices=("auto", "on", "off"),
    )
    workers: int = _setting(1, "Worker processes", ge=1)
    batch_size: int = _setting(64, "Maximum batch size for dynamic batching (TorchServe)", ge=1)
    # Short: if a worker dies, TorchServe loses the requests of its incomplete batch, without an answer.
    batch_delay_ms: int = _setting(1, "Milliseconds to wait for a batch to fill (TorchServe)", ge=0)
    # When the queue is full, further requests are rejected at once instead of waiting without an answer.
    queue_size: int = _setting(
        100, "Size of the request queue; further requests are rejected with 503", ge=1, le=100_000
    )
    timeout_s: float = _setting(120.0, "Seconds to wait until the model answers", ge=1e-3)
    drain_s: float = _setting(25.0, "Seconds to finish requests in flight when it is stopped", ge=0, le=86_400)
    unresponsive_timeout_s: float = _setting(120.0, "Seconds without any answer after which the server stops", ge=5)
    grpc_port: int | None = _setting(
        None, "Port of gRPC on the same address (default: on loopback only)", ge=1, le=65_535
    )
    metrics_port: int | None = _setting(
        None, "Port of metrics on the same address (default: on loopback only)", ge=1, le=65_535
    )
    log_format: str = _setting("text", "Log format of problems: text or json", choices=("text", "json"))
    cors_origin: str | None = _setting(
        None,
        "Origin that may send requests from browsers (CORS), such as https://news.example, or * for any",
        option="--cors-origin",
    )
    token_auth: bool = _setting(False, "Answer only requests with a token that TorchServe makes", "NEWSBERT_TOKEN_AUTH")
    token_expiry_min: float = _setting(60.0, "Minutes until such a token expires", ge=1 / 60, le=5_256_000)
    token_file: str | None = _setting(
        None, "Answer only requests with a token of this file (native server); newsbert serve token makes one"
    )
    tls_cert: str | None = _setting(None, "Certificate chain for HTTPS and gRPC, a PEM file (native server)")
    tls_key: str | None = _setting(None, "Private key of the certificate, a PEM file (native server)")
    max_connections: int = _setting(
        10_000, "Maximum number of connections of a worker (native server)", ge=1, le=1_000_000
    )
    header_timeout_s: float = _setting(
        10.0, "Seconds that a client may take for the headers of a request (native server)", ge=0.1, le=86_400
    )
    body_timeout_s: float = _setting(
        30.0, "Seconds that a client may take for a body, or to read an answer (native server)", ge=0.1, le=86_400
    )
    keep_alive_s: float = _setting(
        75.0, "Seconds after which an idle connection is closed (native server)", ge=0.1, le=86_400
    )
    name: str | None = _setting(None, "Model's name in answers (default: its name in the registry)")
    run_dir: str | None = _setting(
        None, "Private directory for sockets, keys and all else that the server writes; made new", "NEWSBERT_RUN_DIR"
    )


@dataclass(frozen=True)
class ImageSettings:
    """Settings of `newsbert build-image`: table `[image]`."""

    server: str = _server()
    repository: str = _setting("", "Prefix of the image names, such as registry.example/team")
    root_image: str = _setting("python:3.11-slim-bookworm", "Python image the base image starts from")
    torch_index: str = _setting(
        "https://download.pytorch.org/whl/cpu", "Package index of the trainer's torch; empty for pip's own"
    )
    gpu: bool = _setting(False, "Base image for NVIDIA GPUs (its build has not been run)")
    runtime: str = _setting(
        "auto", "Inference runtime of the serving image: auto, onnxruntime, onnxruntime-int8, torch, …"
    )
    bundle_versions: bool = _setting(False, "Serve with the bundle's own package versions, which have no hashes")
    pip_options: tuple[str, ...] = _setting((), "NAME=VALUE for pip in the build, such as index-url=https://…")
    build_network: str | None = _setting(None, "Engine network for the build's steps")
    extra_hosts: tuple[str, ...] = _setting((), "HOST:IP known to the build's steps")


@dataclass(frozen=True)
class KubernetesSettings:
    """Settings of `newsbert export kubernetes`: table `[kubernetes]`."""

    namespace: str = _setting("newsbert", "Namespace of the objects")
    min_replicas: int = _setting(2, "Minimum number of replicas", ge=1)
    max_replicas: int = _setting(10, "Maximum number of replicas", ge=1)
    target_queue_ms: int = _setting(
        50, "Scale up when requests wait longer than this in the queue, on average, in milliseconds", ge=1
    )
    cpu: str = _setting("2", "Cores of a pod, as Kubernetes writes them")
    memory: str = _setting("2Gi", "Memory of a pod, as Kubernetes writes it")
    allowed_namespaces: tuple[str, ...] = _setting(
        (), "Namespaces that may send requests besides its own, comma-separated"
    )
    monitoring: str = _setting("monitoring", "Namespace that may read the metrics")


@dataclass(frozen=True)
class EnvironmentSettings:
    """Settings that all environments have: tables `[environments.NAME]`."""

    url: str | None = _setting(None, "URL to reach it by, if not the address it listens on")
    acceptance_data: str | None = _setting(None, "Labelled rows of the acceptance test of newsbert pipeline")
    min_accuracy: float = _setting(0.9, "Minimum accuracy on the acceptance rows", ge=0, le=1)
    timeout_s: float = _setting(120.0, "Seconds to wait until the model answers", ge=1)


@dataclass(frozen=True)
class HostSettings(EnvironmentSettings):
    """An environment on a container engine's host: the default target."""

    target: str = _setting("host", "Kind of environment", choices=("host",))
    host: str = _setting("127.0.0.1", "Address that it answers on")
    port: int = _setting(8080, "Port that it answers on", ge=1, le=65_535)
    engine: str | None = _setting(None, "Address of the container engine (default: DOCKER_HOST's)")
    proxy_image: str = _setting("haproxy:3.0.8", "HAProxy's image, which the requests go through")


@dataclass(frozen=True)
class ClusterSettings(EnvironmentSettings):
    """An environment in a Kubernetes cluster: `target = "kubernetes"`."""

    target: str = _setting("kubernetes", "Kind of environment", choices=("kubernetes",))
    context: str | None = _setting(None, "Context of kubectl's configuration (default: its current one)")
    namespace: str | None = _setting(None, "Namespace (default: that of [kubernetes])")
    timeout_s: float = _setting(600.0, "Seconds to wait until all pods answer", ge=1)


@dataclass(frozen=True)
class CloudRunSettings(EnvironmentSettings):
    """An environment on Google's Cloud Run: `target = "cloud-run"`."""

    target: str = _setting("cloud-run", "Kind of environment", choices=("cloud-run",))
    project: str | None = _setting(None, "Project (default: gcloud's)")
    region: str | None = _setting(None, "Region (default: gcloud's)")
    service_account: str | None = _setting(None, "Who the model runs as (default: the project's own for computing)")
    cpu: str = _setting("2", "Cores of an instance")
    memory: str = _setting("2Gi", "Memory of an instance")
    min_instances: int = _setting(0, "Minimum number of instances", ge=0)
    max_instances: int = _setting(10, "Maximum number of instances", ge=1)
    timeout_s: float = _setting(
        240.0, "Seconds to wait until it answers; Cloud Run itself waits no longer", le=240, ge=3
    )


TARGETS: dict[str, type[EnvironmentSettings]] = {
    "host": HostSettings,
    "kubernetes": ClusterSettings,
    "cloud-run": CloudRunSettings,
}
"""Settings classes of environments, by the value of `target`."""


@dataclass(frozen=True)
class RaySettings:
    """Settings of the processes of `--ray-workers`: table `[ray]`."""

    workers: int = _setting(
        1, "Processes that share the work through Ray; 1 is this process, without Ray", ge=1, option="--ray-workers"
    )
    address: str | None = _setting(
        None,
        "Ray cluster of the workers, HOST:PORT or auto (default: one of this machine's cores, for as long as it takes)",
        "RAY_ADDRESS",
        option="--ray-address",
    )


@dataclass(frozen=True)
class TrackingServerSettings:
    """Settings of `newsbert tracking`: table `[tracking]`."""

    directory: str = _setting("tracking", "Directory of its data, secrets and log")
    backend_store: str | None = _setting(
        None,
        "Database, postgresql://USER@HOST/NAME or sqlite:///FILE (default: the one before, else an SQLite file"
        " in the directory)",
        "MLFLOW_BACKEND_STORE_URI",
    )
    artifacts: str | None = _setting(
        None,
        "Artifacts, s3://BUCKET, gs://BUCKET, wasbs://… or a directory (default: where they were before, else in that"
        " directory)",
        "MLFLOW_ARTIFACTS_DESTINATION",
    )
    host: str = _setting("127.0.0.1", "Address it answers on")
    port: int = _setting(5000, "Port it answers on; 0 takes a free one", ge=0, le=65_535)
    allowed_hosts: tuple[str, ...] = _setting(
        (), "Host names that it accepts, comma-separated (default: loopback, and this machine's if it is exposed)"
    )
    auth: bool | None = _setting(None, "Ask for a name and a password (default: where it is exposed)")
    default_permission: str = _setting(
        "read",
        "What an account may do with experiments and models that others have made",
        choices=("none", "read", "edit"),
    )
    workers: int = _setting(2, "Worker processes", ge=1)
