"""Clients that others have written for the Open Inference Protocol, before the native server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from newsbert.bundle.bundle import Bundle
from newsbert.inference.model import Model
from tests.support import open_inference_clients
from tests.support.calls import free_port
from tests.support.cli import Cli
from tests.support.serving import Start

PYTHON = Path(sys.prefix) / "clients" / "bin" / "python"  # made by `make .venv/clients`


@pytest.fixture(autouse=True)
def clients() -> None:
    """The environment of the clients."""
    if not PYTHON.exists():
        if os.environ.get("NEWSBERT_REQUIRE_ENGINE"):
            pytest.fail(f"NEWSBERT_REQUIRE_ENGINE is set, and there is no {PYTHON}")
        pytest.skip("the clients are not installed: make .venv/clients")


def test_clients_of_triton_and_kserve_get_the_models_answers(start: Start, bundle: Bundle) -> None:
    served = start("--server", "native", "--grpc-port", free_port())
    program = Path(open_inference_clients.__file__)
    answers: dict[str, Any] = {}
    for maker in ("triton", "kserve"):
        command = [PYTHON, program, maker, served.url, served.ready["grpc"]]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert ran.returncode == 0, ran.stderr
        answers |= json.loads(ran.stdout)
    items = [
        {"title": title, "text": text}
        for title, text in zip(open_inference_clients.TITLES, open_inference_clients.TEXTS, strict=True)
    ]
    predictions = Model.from_directory(bundle.path).predict(items)
    assert len(answers) == 5
    for outputs in answers.values():
        assert outputs["label"] == {"shape": [2], "data": [prediction.label for prediction in predictions]}
        assert outputs["review"] == {"shape": [2], "data": [prediction.review for prediction in predictions]}
        assert outputs["score"]["data"] == pytest.approx([prediction.score for prediction in predictions], abs=1e-3)
        assert outputs["probabilities"]["shape"] == [2, len(bundle.contract.labels)]
        flat = [value for prediction in predictions for value in prediction.probabilities.values()]
        assert outputs["probabilities"]["data"] == pytest.approx(flat, abs=1e-3)
    assert served.stop() == 0


def test_kserve_knows_all_of_the_inference_service(cli: Cli) -> None:
    done = cli(
        "export", "kserve", "--image", "registry.example/team/newsbert-serving:News-2", "--name", "news", "--json"
    )
    assert done.returncode == 0, done.stderr
    service = json.loads(done.stdout)
    program = Path(__file__).parents[1] / "support" / "kserve_objects.py"  # its packages are in the other environment

    def list_faults(manifest: object) -> list[str]:
        ran = subprocess.run(
            [PYTHON, program], input=json.dumps(manifest), capture_output=True, text=True, check=False, timeout=120
        )
        assert ran.returncode == 0, ran.stderr
        return list(json.loads(ran.stdout))

    assert list_faults(service) == []
    service["spec"]["predictor"]["containers"][0]["readinessProbe"]["httpget"] = {}
    assert list_faults(service) == [".spec.predictor.containers[0].readinessProbe.httpget is unknown"]
