"""Settings: what they are, what they default to, and what they may be. `config.py` says where values come from."""

import math
from dataclasses import dataclass, field
from typing import Any

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"


def _setting(
    default: Any,
    help: str,
    env: str | None = None,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    option: str | None = None,
) -> Any:
    """A setting.

    Args:
        default: Its default.
        help: What it means.
        env: The ecosystem's own variable for it, where there is one.
        least: The least number it may be.
        most: The largest number it may be.
        choices: The texts it may be.
        option: Its option on the command line, where that has another name.
    """
    metadata = {"help": help, "env": env, "least": least, "most": most, "choices": choices, "option": option}
    return field(default=default, metadata=metadata)


LEARNING_RATES = {"full": 1.5e-4, "lora": 1e-3, "head": 3e-3}
"""Defaults, by what is tuned."""

EPOCHS, BATCH_ROWS = 5.0, 32
"""Defaults where rows are many."""

MIN_STEPS, MIN_STEPS_PER_EPOCH, MIN_BATCH_SIZE = 60, 8, 4
"""By default few rows are read in smaller batches and more often: a new head learns little in a handful of steps."""


@dataclass(frozen=True)
class TrackingSettings:
    """Where runs and models are kept, and whose are trusted: top-level keys of `newsbert.toml`."""

    tracking_uri: str = _setting(DEFAULT_TRACKING_URI, "MLflow tracking server or database", "MLFLOW_TRACKING_URI")
    registry_uri: str | None = _setting(None, "MLflow registry, if not the tracking server", "MLFLOW_REGISTRY_URI")
    experiment: str = _setting("newsbert", "MLflow experiment", "MLFLOW_EXPERIMENT_NAME")
    trusted_keys: tuple[str, ...] = _setting(
        (), "Files of public keys, comma-separated: only models that one of them has signed are loaded"
    )


@dataclass(frozen=True)
class TrainSettings:
    """`newsbert train`: table `[train]`."""

    data: str = _setting("sample", "'sample', a file or directory of labelled rows, or a Hub data set")
    labels: tuple[str, ...] = _setting((), "Names of integer labels 0, 1, …, comma-separated")
    text_column: str | None = _setting(None, "Column of the text")
    label_column: str | None = _setting(None, "Column of the label")
    base_model: str = _setting("minilm", "'minilm' (bundled), a model directory, or a Hub name")
    epochs: float | None = _setting(
        None,
        f"Passes over the training rows (default: {EPOCHS:g}, or more that make {MIN_STEPS} steps)",
        least=1e-6,
        most=10_000,
    )
    max_steps: int | None = _setting(None, "Steps at most, however many epochs they are", least=1)
    samples: int | None = _setting(None, "Training rows to use at most", least=1)
    batch_size: int | None = _setting(
        None,
        f"Rows in a training step (default: {BATCH_ROWS}, or an eighth of all, but {MIN_BATCH_SIZE} at least)",
        least=1,
    )
    tune: str = _setting(
        "full",
        "What is tuned: full, the encoder too; lora, adapters of it; or head, only what follows it",
        choices=tuple(LEARNING_RATES),
    )
    lora_rank: int = _setting(16, "Rank of the adapters of --tune lora", least=1, most=1024)
    precision: str = _setting(
        "auto",
        "What training computes with: bf16, fp32, or auto, bf16 where a timed step is faster with it",
        choices=("auto", "bf16", "fp32"),
    )
    learning_rate: float | None = _setting(
        None,
        f"Peak learning rate (default: {', '.join(f'{rate:g} for {part}' for part, rate in LEARNING_RATES.items())})",
        least=1e-12,
        most=1,
    )
    max_length: int = _setting(128, "Tokens read of a text, in training and in serving", least=8)
    review_precision: float = _setting(
        0.95, "Share of the answers that no person has to see which is to be right", least=0, most=1
    )
    review_below: float | None = _setting(
        None,
        "Score below which a person has to see an answer, 0 for none, 1 for all (default: what keeps that share)",
        least=0,
        most=1,
    )
    seed: int = _setting(42, "Seed of splits, order and initialization", least=0, most=2**32 - 1)
    output: str | None = _setting(None, "Directory for the bundle (default bundles/RUN_ID)")

    def rows_a_step(self, rows: int) -> int:
        """The batch size, or what it is for so many training rows where none is given."""
        return self.batch_size or min(BATCH_ROWS, max(MIN_BATCH_SIZE, rows // MIN_STEPS_PER_EPOCH))

    def passes(self, rows: int) -> float:
        """The epochs, or what they are for so many training rows where none are given."""
        steps = math.ceil(rows / self.rows_a_step(rows))
        return self.epochs or max(EPOCHS, float(math.ceil(MIN_STEPS / steps)))

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, or what it is where none is given."""
        return self.learning_rate or LEARNING_RATES[self.tune]


@dataclass(frozen=True)
class ServeSettings:
    """`newsbert serve`: table `[serve]`."""

    host: str = _setting("127.0.0.1", "Address the model answers on")
    port: int = _setting(8080, "Port the model answers on; 0 takes a free one", least=0, most=65_535)
    runtime: str = _setting("auto", "What computes the answers; newsbert runtimes shows all and compares them")
    review_below: float | None = _setting(
        None, "Score below which a person has to see an answer (default: the model's own)", least=0, most=1
    )
    workers: int = _setting(1, "Worker processes", least=1)
    batch_size: int = _setting(64, "Requests answered together at most", least=1)
    # Short: what TorchServe has taken for a batch that is not full yet is lost, without an answer, if its worker dies.
    batch_delay_ms: int = _setting(1, "Milliseconds to wait for a batch to fill", least=0)
    # Who comes when it is full is told at once to come again, instead of after a time without an answer.
    queue_size: int = _setting(100, "Requests that may wait; those above it get a 503 at once", least=1, most=100_000)
    timeout_s: float = _setting(120.0, "Seconds to wait until the model answers", least=1e-3, option="--timeout")
    drain_s: float = _setting(
        25.0, "Seconds that requests in flight have when it is stopped", least=0, most=86_400, option="--drain"
    )
    lost_s: float = _setting(120.0, "Seconds without any answer after which it ends", least=5)
    grpc_port: int | None = _setting(None, "Answer gRPC on this port too; else it is on loopback", least=1, most=65_535)
    metrics_port: int | None = _setting(
        None, "Show metrics on this port of the address too; else they are on loopback", least=1, most=65_535
    )
    log_format: str = _setting("text", "How problems are logged: text, or json", choices=("text", "json"))
    cors_origin: str | None = _setting(
        None, "Origin whose pages may ask, such as https://news.example, or * for any", option="--cors-origin"
    )
    token_auth: bool = _setting(False, "Answer only requests with a token", "NEWSBERT_TOKEN_AUTH")
    token_expiry_min: float = _setting(
        60.0, "Minutes until a token expires", least=1 / 60, most=5_256_000, option="--token-expiry"
    )
    run_dir: str | None = _setting(
        None, "Private directory for sockets, keys and all it writes; made anew", "NEWSBERT_RUN_DIR"
    )


@dataclass(frozen=True)
class ImageSettings:
    """`newsbert build-image`: table `[image]`."""

    repository: str = _setting("", "Prefix of the image names, such as registry.example/team")
    root_image: str = _setting("python:3.11-slim-bookworm", "Python image the base image starts from")
    torch_index: str = _setting(
        "https://download.pytorch.org/whl/cpu", "Package index of the trainer's torch; empty for pip's own"
    )
    gpu: bool = _setting(False, "Base image for NVIDIA GPUs (its build has not been run)")
    runtime: str = _setting("auto", "What answers in the serving image: auto, onnxruntime, onnxruntime-int8, torch, …")
    bundle_versions: bool = _setting(False, "Serve with the bundle's own package versions, which have no hashes")
    pip_options: tuple[str, ...] = _setting((), "NAME=VALUE for pip in the build, such as index-url=https://…")
    build_network: str | None = _setting(None, "Engine network for the build's steps")
    extra_hosts: tuple[str, ...] = _setting((), "HOST:IP known to the build's steps")


@dataclass(frozen=True)
class KubernetesSettings:
    """`newsbert serve kubernetes`: table `[kubernetes]`."""

    namespace: str = _setting("newsbert", "Namespace of the objects")
    min_replicas: int = _setting(2, "Pods at least", least=1)
    max_replicas: int = _setting(10, "Pods at most", least=1)
    queue_ms: int = _setting(50, "Milliseconds that requests may wait on average before there are more pods", least=1)
    cpu: str = _setting("2", "Cores of a pod, as Kubernetes writes them")
    memory: str = _setting("2Gi", "Memory of a pod, as Kubernetes writes it")
    clients: tuple[str, ...] = _setting((), "Namespaces that may ask, comma-separated, besides the objects' own")
    monitoring: str = _setting("monitoring", "Namespace that may read the metrics")


@dataclass(frozen=True)
class EnvironmentSettings:
    """What all environments have: tables `[environments.NAME]`."""

    url: str | None = _setting(None, "Where it is asked, if that is not where it answers")
    acceptance: str | None = _setting(None, "Labelled rows that newsbert deliver asks it")
    least_accuracy: float = _setting(0.9, "Share of those that it must get right", least=0, most=1)
    timeout_s: float = _setting(120.0, "Seconds to wait until the model answers", least=1)


@dataclass(frozen=True)
class HostSettings(EnvironmentSettings):
    """An environment on a container engine's host, where its table names no other target."""

    target: str = _setting("host", "What runs it", choices=("host",))
    host: str = _setting("127.0.0.1", "Address that it answers on")
    port: int = _setting(8080, "Port that it answers on", least=1, most=65_535)
    engine: str | None = _setting(None, "Address of the container engine (default: DOCKER_HOST's)")
    proxy_image: str = _setting("haproxy:3.0.8", "HAProxy's image, which the requests go through")


@dataclass(frozen=True)
class ClusterSettings(EnvironmentSettings):
    """An environment in a Kubernetes cluster: `target = "kubernetes"`."""

    target: str = _setting("kubernetes", "What runs it", choices=("kubernetes",))
    context: str | None = _setting(None, "Context of kubectl's configuration (default: its current one)")
    namespace: str | None = _setting(None, "Namespace (default: that of [kubernetes])")
    timeout_s: float = _setting(600.0, "Seconds to wait until all pods answer", least=1)


@dataclass(frozen=True)
class CloudRunSettings(EnvironmentSettings):
    """An environment on Google's Cloud Run: `target = "cloud-run"`."""

    target: str = _setting("cloud-run", "What runs it", choices=("cloud-run",))
    project: str | None = _setting(None, "Project (default: gcloud's)")
    region: str | None = _setting(None, "Region (default: gcloud's)")
    service_account: str | None = _setting(None, "Who the model runs as (default: the project's own for computing)")
    cpu: str = _setting("2", "Cores of an instance")
    memory: str = _setting("2Gi", "Memory of an instance")
    min_instances: int = _setting(0, "Instances at least", least=0)
    max_instances: int = _setting(10, "Instances at most", least=1)
    timeout_s: float = _setting(
        240.0, "Seconds to wait until it answers; Cloud Run itself waits no longer", most=240, least=3
    )


TARGETS: dict[str, type[EnvironmentSettings]] = {
    "host": HostSettings,
    "kubernetes": ClusterSettings,
    "cloud-run": CloudRunSettings,
}
"""Kinds of environments, by the value of `target`."""


@dataclass(frozen=True)
class RaySettings:
    """Where the work of `--workers` is done: table `[ray]`."""

    workers: int = _setting(1, "Processes that share the work through Ray; 1 is this process, without Ray", least=1)
    address: str | None = _setting(
        None,
        "Ray cluster of the workers, HOST:PORT or auto (default: one of this machine's cores, for as long as it takes)",
        "RAY_ADDRESS",
        option="--ray-address",
    )


@dataclass(frozen=True)
class TrackingServerSettings:
    """`newsbert tracking`: table `[tracking]`."""

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
    port: int = _setting(5000, "Port it answers on; 0 takes a free one", least=0, most=65_535)
    allowed_hosts: tuple[str, ...] = _setting(
        (), "Names it may be called by, comma-separated (default: loopback, and this machine's where it is exposed)"
    )
    auth: bool | None = _setting(None, "Ask for a name and a password (default: where it is exposed)")
    default_permission: str = _setting(
        "read",
        "What an account may do with experiments and models that others have made",
        choices=("none", "read", "edit"),
    )
    workers: int = _setting(2, "Worker processes", least=1)
