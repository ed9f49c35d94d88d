"""Model repositories: MLServer itself serves one, and Triton's is what its own schema describes.

Triton cannot run here: its program is called with a stand-in for the module that Triton gives it.
"""

import contextlib
import importlib.util
import json
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.inference.model import Model
from tests.support.calls import failed, free_port
from tests.support.cli import Cli, long

PYTHONS = {name: Path(sys.prefix) / name / "bin" / "python" for name in ("clients", "mlserver")}
TEXTS, TITLES = ["goal team cup", "größter Markt"], ["Sport", "Börse"]
_CHECK_CONFIG = """
import sys
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
print(text_format.Parse(open(sys.argv[1]).read(), model_config_pb2.ModelConfig()).name)
"""


def _require(name: str) -> Path:
    if not PYTHONS[name].exists():
        pytest.skip(f"its environment is not there: make .venv/{name}")
    return PYTHONS[name]


@pytest.fixture
def repository(bundle: Bundle, cli: Cli, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A repository of the tiny model for the server that is the test's parameter."""
    export = ("export", "model-repository", bundle.path, "--for", request.param, "--name", "News/7")
    done = cli(*export, "--runtime", "onnxruntime", "-o", "models", "--json")
    assert done.returncode == 0, done.stderr
    directory = Path(json.loads(done.stdout)["directory"])
    assert directory.resolve() == tmp_path / "models" / "news_classification"
    failed(cli(*export, "-o", "models"), 2, "exists")
    return tmp_path / "models"


@long
@pytest.mark.parametrize("repository", ["mlserver"], indirect=True)
def test_mlserver_serves_it(repository: Path, bundle: Bundle) -> None:
    python, port = _require("mlserver"), free_port()
    settings = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "parallel_workers": 0}
    (repository / "settings.json").write_text(json.dumps({"host": "127.0.0.1", **settings}))
    command = [str(python.with_name("mlserver")), "start", str(repository)]
    with (repository / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait_ready(f"http://127.0.0.1:{port}", process, repository / "log")
            answers = _infer(port, {"text": TEXTS, "title": TITLES})
            with pytest.raises(urllib.error.HTTPError) as caught:
                _infer(port, {"title": TITLES})
            assert (caught.value.code, "the input 'text' is missing" in caught.value.read().decode()) == (400, True)
            caught.value.close()
        finally:
            process.terminate()
    _check(answers, bundle)


def _wait_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/v2/models/news_classification/ready"):
            return
        time.sleep(0.1)


def _infer(port: int, tensors: dict[str, list[str]]) -> dict[str, Any]:
    inputs = [{"name": name, "shape": [len(data)], "datatype": "BYTES", "data": data} for name, data in tensors.items()]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/news_classification/infer",
        json.dumps({"inputs": inputs}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        document = json.load(response)
    return {output["name"]: np.array(output["data"]).reshape(output["shape"]) for output in document["outputs"]}


@pytest.mark.parametrize("repository", ["triton"], indirect=True)
def test_tritons_program_answers(repository: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in: Any = types.ModuleType("triton_python_backend_utils")
    stand_in.get_input_tensor_by_name = lambda request, name: request.tensors.get(name)
    stand_in.Tensor = lambda name, array: (name, array)
    stand_in.TritonError = str
    stand_in.InferenceResponse = lambda tensors=(), error=None: error or dict(tensors)
    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
    (program,) = repository.glob("news_classification/*/model.py")
    spec = importlib.util.spec_from_file_location("triton_model", program)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    parameters = {"name": {"string_value": "News/7"}, "runtime": {"string_value": "onnxruntime"}}
    model.initialize({"model_config": json.dumps({"parameters": parameters})})
    good, bad = model.execute([_Request({"text": TEXTS, "title": TITLES}), _Request({"title": TITLES})])
    assert bad == "the input 'text' is missing"
    _check({**good, "label": np.array([value.decode() for value in good["label"]])}, bundle)


class _Request:
    """A request as Triton's Python backend has it."""

    def __init__(self, tensors: dict[str, list[str]]) -> None:
        self.tensors = {
            name: types.SimpleNamespace(as_numpy=lambda data=data: np.array([text.encode() for text in data], object))
            for name, data in tensors.items()
        }

    def requested_output_names(self) -> list[str]:
        return ["label", "score", "review", "probabilities"]


@pytest.mark.parametrize("repository", ["triton"], indirect=True)
def test_tritons_configuration_is_one_of_its_schema(repository: Path) -> None:
    python = _require("clients")
    file = repository / "news_classification" / "config.pbtxt"
    ran = subprocess.run([python, "-c", _CHECK_CONFIG, file], capture_output=True, text=True, check=False, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "news_classification\n"), ran.stderr


def _check(answers: dict[str, Any], bundle: Bundle) -> None:
    items = [{"title": title, "text": text} for title, text in zip(TITLES, TEXTS, strict=True)]
    predictions = Model.from_directory(bundle.path, runtime="onnxruntime").predict(items)
    assert answers["label"].tolist() == [prediction.label for prediction in predictions]
    assert answers["review"].tolist() == [prediction.review for prediction in predictions]
    expected = [list(prediction.probabilities.values()) for prediction in predictions]
    np.testing.assert_allclose(answers["probabilities"].astype(float), expected, atol=1e-3)


def test_an_unknown_server_is_an_error(bundle: Bundle, cli: Cli) -> None:
    done = cli("export", "model-repository", bundle.path, "--for", "tensorflow")
    failed(done, 2, "--for 'tensorflow' cannot be")
    assert not Path("models").exists()
