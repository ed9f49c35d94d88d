"""The servers that are compared: how each is started, asked and understood.

Each gets the same fine-tuned weights, texts and threads. "At its defaults" is said of batching and workers: these are
left as each project has them, or as its own documentation shows them where there is no default.
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
"""Texts and seconds of a batch in LitServe's own benchmark of a BERT; its default is no batching."""

_JSON, _FORM = "application/json", "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Setting:
    """What all servers are given.

    Attributes:
        bundle: The model.
        threads: For the computation of one batch.
        peers_bin: Programs of the peers' environment.
        mlflow_models: What MLflow serves: `transformers`, in its own flavor; `newsbert`, what newsbert logs.
    """

    bundle: Bundle
    threads: int
    peers_bin: Path
    mlflow_models: Path


@dataclass(frozen=True)
class Server:
    """A server that can be started, and how it is asked.

    Attributes:
        key: What `--only` calls it: its letter, and a variant's name.
        name: What the tables call it.
        command: Its command line, from a port and a directory of its own, into which it may write first.
        path: Of the URL that takes texts.
        ask: A text to a request's body.
        read: An answer's document to probabilities by label, or to the bare label.
        content_type: Of the request.
        default: Whether it is a peer at its defaults.
        runtime: Of ours: what computes.
        environment: Variables on top of what all get.
    """

    key: str
    name: str
    command: Callable[[Setting, int, Path], list[str]]
    path: str
    ask: Callable[[str], str]
    read: Callable[[Any], Any]
    content_type: str = _JSON
    default: bool = False
    runtime: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def request(self, text: str) -> str:
        """The whole HTTP request for a text, each byte as one character."""
        body = self.ask(text).encode()
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n"
            f"Content-Type: {self.content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return (head.encode() + body).decode("latin-1")

    def answer(self, body: str) -> tuple[str, dict[str, float] | None]:
        """The label of an answer, and the probabilities, if it has any.

        Raises:
            ValueError: If it is not what this server answers.
        """
        text = body.encode("latin-1").decode()
        try:
            content = self.read(json.loads(text) if text.startswith(("{", "[")) else text)
            label = content if isinstance(content, str) else max(content, key=content.__getitem__)
        except (LookupError, TypeError) as error:
            raise ValueError(f"unreadable: {text[:80]}") from error
        return label, None if isinstance(content, str) else content


def environment(setting: Setting) -> dict[str, str]:
    """What every server finds in its environment: the threads, for every library that could start some."""
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
    """ONNX Runtime's variants that a bundle has the graphs of."""
    return [
        name
        for name, files in RUNTIME_FILES.items()
        if name.startswith("onnxruntime") and all((bundle.path / file).is_file() for file in files)
    ]


def all_servers(runtimes: list[str], graph: str) -> list[Server]:
    """Every server there is, in the order of the tables.

    Args:
        runtimes: Those of ours.
        graph: The file in the bundle that the peers answer with where they use our graph.
    """
    on_graph = {"NEWSBERT_BENCH_GRAPH": graph}
    text = {"path": "/predict", "ask": partial(_json_of, "text"), "read": _itself}
    fastapi = {"command": _fastapi, **text}
    litserve = {"command": partial(_litserve, ()), **text}
    batched = {"command": partial(_litserve, LIT_BATCH), **text}
    bentoml = {
        "command": _bentoml,
        "path": "/predict",
        "ask": partial(_json_of_list, "texts"),
        "read": _first,
    }
    return [
        Server(
            "a", "reference handler, TorchServe", _reference, "/predictions/news",
            _form, _itself, content_type=_FORM, default=True,
        ),
        Server("b", "FastAPI, pipeline", default=True, **fastapi),  # type: ignore[arg-type]
        Server("b-onnx", "FastAPI, our graph", environment=on_graph, **fastapi),  # type: ignore[arg-type]
        Server("c", "LitServe", default=True, **litserve),  # type: ignore[arg-type]
        Server("c-batch", "LitServe, batches", **batched),  # type: ignore[arg-type]
        Server("c-onnx", "LitServe, batches, our graph", environment=on_graph, **batched),  # type: ignore[arg-type]
        Server("d", "BentoML, adaptive batches", default=True, **bentoml),  # type: ignore[arg-type]
        Server("d-onnx", "BentoML, adaptive batches, our graph", environment=on_graph, **bentoml),  # type: ignore[arg-type]
        Server(
            "e", "mlflow models serve", partial(_mlflow, "transformers"), "/invocations",
            partial(_json_of_list, "inputs"), _mlflow_label, default=True,
        ),
        Server(
            "e-onnx", "mlflow models serve, our graph", partial(_mlflow, "newsbert"), "/invocations",
            _json_of_instances, _mlflow_probabilities,
        ),
        *(
            Server(
                f"f-{runtime}", f"newsbert, {runtime}", partial(_newsbert, runtime),
                "/predictions/news_classification", partial(_json_of, "text"), _probabilities, runtime=runtime,
            )
            for runtime in runtimes
        ),
    ]  # fmt: skip


def save_mlflow_models(bundle: Bundle, path: Path) -> None:
    """Write a bundle as MLflow's own flavor for transformers has it, and as newsbert logs it, into `path`."""
    silence_mlflow()
    import mlflow.transformers
    from mlflow.models import Model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from newsbert.tracking import flavor

    model = AutoModelForSequenceClassification.from_pretrained(str(bundle.path), trust_remote_code=False).eval()
    flavor.save_model(str(path / "newsbert"), Model(), bundle=bundle, model=model)
    components = {"model": model, "tokenizer": AutoTokenizer.from_pretrained(str(bundle.path), trust_remote_code=False)}
    # Named, as it would look for torchvision to pin it; it is served in this environment anyway.
    pins = ["torch", "transformers"]
    mlflow.transformers.save_model(
        components, str(path / "transformers"), task="text-classification", pip_requirements=pins
    )


def _reference(setting: Setting, port: int, work: Path) -> list[str]:
    """TorchServe as its own launcher starts it, with as many workers as it takes by default."""
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
        # It keeps its process's number in the temporary directory: one for the whole machine, were there but one.
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
    # It starts uvicorn by name.
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


def _itself(document: Any) -> Any:
    return document


def _first(document: Any) -> Any:
    return document[0]


def _probabilities(document: Any) -> Any:
    return document["probabilities"]


def _mlflow_label(document: Any) -> Any:
    return document["predictions"][0]["label"]


def _mlflow_probabilities(document: Any) -> Any:
    return document["predictions"][0]["probabilities"]
