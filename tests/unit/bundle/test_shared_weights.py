"""The graph refers to PyTorch's weights: nothing is held twice, nothing is read from elsewhere."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from transformers import BertConfig

from newsbert.bundle import shared_weights
from newsbert.bundle.bundle import Bundle
from newsbert.errors import ModelError
from newsbert.inference.runtimes.onnxruntime import OnnxGraph
from newsbert.training import bert_graph


def test_a_graph_with_shared_weights_gives_the_same_answers(bundle: Bundle, tmp_path: Path) -> None:
    graph, weights = tmp_path / "model.onnx", tmp_path / "model.safetensors"
    shutil.copy(bundle.path / weights.name, weights)
    onnx.save(shared_weights.load(bundle.path / graph.name), str(graph))  # which holds all of its tensors
    whole_bytes = graph.stat().st_size
    config = BertConfig.from_pretrained(bundle.path)
    ids = np.arange(16).reshape(2, 8)
    answers = OnnxGraph(graph).logits(ids, np.ones_like(ids))
    shared_weights.externalize(graph, weights, bert_graph.query_scale(config))
    assert graph.stat().st_size < whole_bytes
    matrices = [
        tensor for tensor in onnx.load(str(graph), load_external_data=False).graph.initializer if len(tensor.dims) > 1
    ]
    assert [tensor.name for tensor in matrices if not tensor.external_data and np.prod(tensor.dims) > 256] == []
    assert graph.read_bytes() == (bundle.path / graph.name).read_bytes()
    assert (OnnxGraph(graph).logits(ids, np.ones_like(ids)) == answers).all()


@pytest.mark.parametrize("location", ["../secret", "/dev/zero", "link", "*/_ORT_MEM_ADDR_/*"])
def test_attack_a_graph_that_refers_to_another_file_is_refused(bundle: Bundle, tmp_path: Path, location: str) -> None:
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
