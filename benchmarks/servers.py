"""The compared servers: how to start them, send requests and parse answers.

All have the same fine-tuned weights, texts and threads. "Defaults" means batching and workers: they are those of the
project, or of its documentation if there is no default.
"""

import json
import os
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from newsbert.bundle.bundle import RUNTIME_FILES, Bundle
from newsbert.core.environment import silence_mlflow
from newsbert.core.ports import claim_port
from newsbert.serving.torchserve import jvm

APPS = Path(__file__).parent / "peers"
LIT_BATCH = ("8", "0.01")
"""Texts and seconds of a batch in the benchmark of a BERT by LitServe; its default is no batching."""

_JSON, _FORM = "application/json", "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Setting:
    """Settings of all servers.

    Attributes:
        bundle: The model.
        threads: Number of threads for one batch.
        peers_bin: Directory of the programs of the peers' environment.
        mlflow_models: Directory of the models for MLflow: `transformers`, in MLflow's flavor, and `newsbert`.
    """

    bundle: Bundle
    threads: int
    peers_bin: Path
    mlflow_models: Path


@dataclass(frozen=True)
class Server:
    """A server, and its form of requests and answers.

    Attributes:
        key: Name in `--only`: a letter, and the name of a variant.
        name: Name in the tables.
        command: Function that returns the command line; it may write into the directory that it gets.
        path: Path of the URL for predictions.
        make_body: Function that makes the body of a request from a text.
        parse: Function that returns probabilities by label, or a label, from the document of an answer.
        content_type: Content type of a request.
        default: Whether it is a peer at its defaults.
        runtime: Runtime of newsbert; empty for a peer.
        environment: Additional environment variables.
    """

    key: str
    name: str
    command: Callable[[Setting, int, Path], list[str]]
    path: str
    make_body: Callable[[str], str]
    parse: Callable[[Any], Any]
    content_type: str = _JSON
    default: bool = False
    runtime: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def request(self, text: str) -> str:
        """Return the whole HTTP request for a text, in Latin-1."""
        body = self.make_body(text).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return (head.encode() + body).decode("latin-1")

    def answer(self, body: str) -> tuple[str, dict[str, float] | None]:
        """Return the label of an answer, and its probabilities, if it has any.

        Raises:
            ValueError: If it is no answer of this server.
        """
        text = body.encode("latin-1").decode()
        try:
            content = self.parse(json.loads(text) if text.startswith(("{", "[")) else text)
            label = content if isinstance(content, str) else max(content, key=content.__getitem__)
        except (LookupError, TypeError) as error:
            raise ValueError(f"unreadable: {text[:80]}") from error
        return label, None if isinstance(content, str) else content


def environment(setting: Setting) -> dict[str, str]:
    """Return the environment variables of all servers: the number of threads for all libraries, and settings."""
    threads = str(setting.threads)
    return {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "NEWSBERT_BENCH_BUNDLE": str(setting.bundle.path.resolve()),
        "NEWSBERT_BENCH_THREADS": threads,
        "HF_HUB_OFFLINE": "1",
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def runtimes_of(bundle: Bundle) -> list[str]:
    """Return the runtimes of ONNX Runtime whose graphs a bundle has."""
    return [
        name
        for name, files in RUNTIME_FILES.items()
        if name.startswith("onnxruntime") and all((bundle.path / file).is_file() for file in files)
    ]


def all_servers(runtimes: list[str], graph: str) -> list[Server]:
    """Return all servers, in the order of the tables.

    Args:
        runtimes: Runtimes of newsbert.
        graph: Graph of the bundle for the peers.
    """
    on_graph = {"NEWSBERT_BENCH_GRAPH": graph}
    text = {"path": "/predict", "make_body": partial(_json_of, "text"), "parse": _parse_document}
    fastapi = {"command": _fastapi, **text}
    litserve = {"command": partial(_litserve, ()), **text}
    batched = {"command": partial(_litserve, LIT_BATCH), **text}
    bentoml = {
        "command": _bentoml,
        "path": "/predict",
        "make_body": partial(_json_of_list, "texts"),
        "parse": _parse_first,
    }
    return [
        Server(
            "a", "reference handler, TorchServe", _reference, "/predictions/news",
            _form, _parse_document, content_type=_FORM, default=True,
        ),
        Server("b", "FastAPI, pipeline", default=True, **fastapi),  # type: ignore[arg-type]
        Server("b-onnx", "FastAPI, ONNX graph", environment=on_graph, **fastapi),  # type: ignore[arg-type]
        Server("c", "LitServe", default=True, **litserve),  # type: ignore[arg-type]
        Server("c-batch", "LitServe, batches", **batched),  # type: ignore[arg-type]
        Server("c-onnx", "LitServe, batches, ONNX graph", environment=on_graph, **batched),  # type: ignore[arg-type]
        Server("d", "BentoML, adaptive batches", default=True, **bentoml),  # type: ignore[arg-type]
        Server("d-onnx", "BentoML, adaptive batches, ONNX graph", environment=on_graph, **bentoml),  # type: ignore[arg-type]
        Server(
            "e", "mlflow models serve", partial(_mlflow, "transformers"), "/invocations",
            partial(_json_of_list, "inputs"), _parse_mlflow_label, default=True,
        ),
        Server(
            "e-onnx", "mlflow models serve, ONNX graph", partial(_mlflow, "newsbert"), "/invocations",
            _json_of_instances, _parse_mlflow_probabilities,
        ),
        *(
            Server(
                f"f-{runtime}", f"newsbert, {runtime}", partial(_newsbert, runtime),
                "/predictions/news_classification", partial(_json_of, "text"), _parse_probabilities, runtime=runtime,
            )
            for runtime in runtimes
        ),
        *(
            Server(
                f"n-{runtime}", f"newsbert's native server, {runtime}", partial(_native, runtime),
                "/predictions/news_classification", partial(_json_of, "text"), _parse_probabilities, runtime=runtime,
            )
            for runtime in runtimes
        ),
    ]  # fmt: skip


def save_mlflow_models(bundle: Bundle, path: Path) -> None:
    """Write a bundle into `path` in MLflow's flavor for transformers, and as newsbert logs it."""
    silence_mlflow()
    import mlflow.transformers
    from mlflow.models import Model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from newsbert.tracking import flavor

    model = AutoModelForSequenceClassification.from_pretrained(str(bundle.path), trust_remote_code=False).eval()
    flavor.save_model(str(path / "newsbert"), Model(), bundle=bundle, model=model)
    components = {"model": model, "tokenizer": AutoTokenizer.from_pretrained(str(bundle.path), trust_remote_code=False)}
    # Without names, MLflow would look for torchvision to pin it. The model is served in this environment anyway.
    pins = ["torch", "transformers"]
    mlflow.transformers.save_model(
        components, str(path / "transformers"), task="text-classification", pip_requirements=pins
    )


def _reference(setting: Setting, port: int, work: Path) -> list[str]:
    """Return the command of TorchServe's launcher, with the default number of workers."""
    files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    present = [str(setting.bundle.path.resolve() / name) for name in files if (setting.bundle.path / name).is_file()]
    subprocess.run(
        [
            _program("torch-model-archiver"), "--model-name", "news", "--version", "1.0",
            "--handler", str(APPS / "reference_handler.py"),
            "--extra-files", ",".join([*present, str(setting.bundle.path.resolve() / "class_mapping.json")]),
            "--export-path", str(work),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    others = [claim_port("127.0.0.1", 0) for _ in range(4)]
    properties = {
        "inference_address": f"http://127.0.0.1:{port}",
        "management_address": f"http://127.0.0.1:{others[0]}",
        "metrics_address": f"http://127.0.0.1:{others[1]}",
        "grpc_inference_port": others[2],
        "grpc_management_port": others[3],
        "disable_token_authorization": "true",
    }
    properties_file = work / "config.properties"
    properties_file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()), encoding="utf-8")
    return [
        # TorchServe writes its process id into the temporary directory, so every server needs its own.
        "env", f"JAVA_HOME={jvm.find_java().parent.parent}", f"TMPDIR={work}", f"TEMP={work}", f"LOG_LOCATION={work}",
        f"METRICS_LOCATION={work}", f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}",
        _program("torchserve"), "--start", "--foreground", "--ncs", "--model-store", str(work),
        "--models", "news=news.mar", "--ts-config", str(properties_file),
    ]  # fmt: skip


def _fastapi(setting: Setting, port: int, work: Path) -> list[str]:
    return [str(setting.peers_bin / "uvicorn"), "--app-dir", str(APPS), "--port", str(port), "fastapi_app:app"]


def _litserve(batching: tuple[str, ...], setting: Setting, port: int, work: Path) -> list[str]:
    return [str(setting.peers_bin / "python"), str(APPS / "litserve_app.py"), str(port), *batching]


def _bentoml(setting: Setting, port: int, work: Path) -> list[str]:
    return [
        "env", f"BENTOML_HOME={work / 'bentoml'}", str(setting.peers_bin / "bentoml"), "serve",
        "--working-dir", str(APPS), "--host", "127.0.0.1", "--port", str(port), "bentoml_app:News",
    ]  # fmt: skip


def _mlflow(model: str, setting: Setting, port: int, work: Path) -> list[str]:
    # MLflow finds uvicorn in the PATH.
    return [
        "env", f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}", sys.executable, "-m", "mlflow", "models",
        "serve", "--model-uri", str(setting.mlflow_models / model), "--env-manager", "local", "--port", str(port),
    ]  # fmt: skip


def _newsbert(runtime: str, setting: Setting, port: int, work: Path) -> list[str]:
    newsbert = [sys.executable, "-m", "newsbert"]
    subprocess.run(
        [*newsbert, "export", "archive", setting.bundle.path.resolve(), "--runtime", runtime, "--output-dir", work],
        cwd=work, check=True, capture_output=True,
    )  # fmt: skip
    return [*newsbert, "serve", "locally", str(work / "news_classification.mar"), "--port", str(port)]


def _native(runtime: str, setting: Setting, port: int, work: Path) -> list[str]:
    return [
        sys.executable, "-m", "newsbert", "serve", "locally", str(setting.bundle.path.resolve()),
        "--server", "native", "--runtime", runtime, "--port", str(port),
    ]  # fmt: skip


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _json_of(key: str, text: str) -> str:
    return json.dumps({key: text}, ensure_ascii=False)


def _json_of_list(key: str, text: str) -> str:
    return json.dumps({key: [text]}, ensure_ascii=False)


def _json_of_instances(text: str) -> str:
    return json.dumps({"instances": [{"text": text}]}, ensure_ascii=False)


def _form(text: str) -> str:
    return urllib.parse.urlencode({"data": text})


def _parse_document(document: Any) -> Any:
    return document


def _parse_first(document: Any) -> Any:
    return document[0]


def _parse_probabilities(document: Any) -> Any:
    return document["probabilities"]


def _parse_mlflow_label(document: Any) -> Any:
    return document["predictions"][0]["label"]


def _parse_mlflow_probabilities(document: Any) -> Any:
    return document["predictions"][0]["probabilities"]
