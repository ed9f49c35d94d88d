"""The graph refers to PyTorch's weights: nothing is held twice, nothing is read from elsewhere."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from newsbert import shared_weights
from newsbert.bundle import Bundle
from newsbert.errors import ModelError
from newsbert.runtimes.onnx import OnnxGraph


def test_a_graph_refers_to_the_weights_and_answers_alike(bundle: Bundle, tmp_path: Path) -> None:
    graph, weights = tmp_path / "model.onnx", tmp_path / "model.safetensors"
    shutil.copy(bundle.path / weights.name, weights)
    onnx.save(onnx.load(str(bundle.path / graph.name)), str(graph))  # which holds all of its tensors
    whole_bytes = graph.stat().st_size
    ids = np.arange(16).reshape(2, 8)
    answers = OnnxGraph(graph).logits(ids, np.ones_like(ids))
    shared_weights.share(graph, weights)
    assert graph.stat().st_size < whole_bytes
    assert graph.read_bytes() == (bundle.path / graph.name).read_bytes()
    assert (OnnxGraph(graph).logits(ids, np.ones_like(ids)) == answers).all()


@pytest.mark.parametrize("location", ["../secret", "/dev/zero", "link", "*/_ORT_MEM_ADDR_/*"])
def test_attack_a_graph_refers_to_a_file_elsewhere(bundle: Bundle, tmp_path: Path, location: str) -> None:
    (tmp_path / "model").mkdir()
    shutil.copy(bundle.path / "model.safetensors", tmp_path / "secret")
    (tmp_path / "model/link").symlink_to(tmp_path / "secret")
    model = onnx.load(str(bundle.path / "model.onnx"), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (tmp_path / "model/model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="cannot be loaded"):
        OnnxGraph(tmp_path / "model/model.onnx")
