"""The quantized graph of the tiny trained model."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from newsbert.bundle.bundle import INT8_GRAPH, Bundle
from newsbert.bundle.contract import GraphInfo
from newsbert.core import cpu
from newsbert.inference.runtime import load_runtime, resolve_runtime
from newsbert.inference.tokenization import SequenceTokenizer
from newsbert.training.export import parity, quantization

TEXTS = ["stocks market profit", "goal team", "minister border treaty vote " * 5, "bank"]


def _written(bundle: Bundle, directory: Path) -> Path:
    tokenizer = SequenceTokenizer.load(bundle.path / "tokenizer.json", bundle.contract.max_length, 0)
    target = directory / "quantized.onnx"
    quantization.write(bundle.path / "model.onnx", target, tokenizer.encode(TEXTS), 0)
    return target


def test_every_product_but_the_labels_is_one_of_integers_when_it_runs(bundle: Bundle, tmp_path: Path) -> None:
    """ONNX Runtime computes in fp32 whatever it does not recognise, without a warning."""
    optimized = tmp_path / "optimized.onnx"
    script = (
        "import sys, onnxruntime\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.log_severity_level = 3\n"
        "options.optimized_model_filepath = sys.argv[2]\n"
        "onnxruntime.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])\n"
    )
    subprocess.run([sys.executable, "-c", script, _written(bundle, tmp_path), optimized], check=True, timeout=120)
    kinds = [node.op_type for node in onnx.load(str(optimized)).graph.node]
    source = [node.op_type for node in onnx.load(str(bundle.path / "model.onnx")).graph.node]
    assert kinds.count("QGemm") == source.count("Gemm") - 1
    assert [kind for kind in kinds if "Gemm" in kind and kind != "QGemm"] == ["Gemm"]


def test_weights_and_embeddings_are_bytes(bundle: Bundle, tmp_path: Path) -> None:
    model = onnx.load(str(_written(bundle, tmp_path)))
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert max(int(np.prod(tensor.dims)) for tensor in floats) < 10_000
    assert sum(tensor.data_type == onnx.TensorProto.INT8 for tensor in model.graph.initializer) > 10


def test_the_same_rows_give_the_same_graph(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert _written(bundle, tmp_path).read_bytes() == _written(bundle, tmp_path / "other").read_bytes()


@pytest.mark.skipif(not cpu.multiplies_int8(), reason="this processor does not multiply 8-bit integers")
def test_training_ships_it_with_its_agreement(bundle: Bundle) -> None:
    graph = bundle.contract.graphs[INT8_GRAPH]
    assert graph.rows > 0
    assert graph.agreement > 0.9
    assert graph.batch_difference <= 1e-3
    assert 1e-5 < graph.max_difference < 0.3
    assert resolve_runtime(bundle) == "onnxruntime-int8"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"accuracy_loss": 100 * 6 / 2000, "rows": 2000}, True),
        ({"accuracy_loss": -1.0, "rows": 2000}, True),
        ({"accuracy_loss": 100 * 7 / 2000, "rows": 2000}, False),
        ({"accuracy_loss": 100 * (0.93 - 0.925), "rows": 200}, True),  # one row
        ({"accuracy_loss": 100 * (0.93 - 0.92), "rows": 200}, False),
        ({"batch_difference": 0.002}, False),
        ({"batch_difference": float("nan")}, False),
    ],
)
def test_what_costs_accuracy_or_depends_on_its_neighbours_does_not_ship(
    changes: dict[str, float], expected: bool
) -> None:
    assert parity.passes_gate(GraphInfo("onnxruntime-int8", 0.02, 0.1, **changes)) is expected  # type: ignore[arg-type]


@pytest.mark.skipif(not cpu.multiplies_int8(), reason="this processor does not multiply 8-bit integers")
def test_several_cores_give_the_answers_of_one_in_the_same_order(bundle: Bundle) -> None:
    texts = [f"{'stocks ' * (number % 23)}goal {'team ' * (number % 5)}" for number in range(200)]
    one, three = (load_runtime(bundle, "onnxruntime-int8", threads).predict(texts) for threads in (1, 3))
    assert float(np.abs(one - three).max()) <= 1e-6
    assert float(one.std(axis=0).max()) > 0.01
