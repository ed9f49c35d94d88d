"""OpenVINO: reads the same ONNX graphs. The fastest for many texts at once on some processors, slower for one text."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from newsbert.core.installation import MissingExtraError
from newsbert.core.types import FloatArray
from newsbert.errors import ModelError
from newsbert.inference.tokenization import Ids

LENGTH_STEP = 16
"""Lengths are padded to multiples of this: OpenVINO prepares itself again for every new shape."""


class OpenVinoGraph:
    """An ONNX graph in OpenVINO, on the CPU.

    Args:
        file: Graph with the inputs `input_ids` and `attention_mask` `(batch, sequence)` and the output `logits`.
        threads: Number of threads for one batch; defaults to OpenVINO's own choice.
        precision: `f32` or `bf16`: the precision of the graph's float operations.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
        ModelError: If the file is missing or is not a graph.
    """

    def __init__(self, file: Path, threads: int | None = None, precision: str = "f32") -> None:
        openvino = _import_openvino()
        # With pinning, every worker would take the same first cores.
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision, "ENABLE_CPU_PINNING": "NO"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            core = openvino.Core()
            self._request = core.compile_model(core.read_model(str(file)), "CPU", options).create_infer_request()
        except RuntimeError as error:
            raise ModelError(f"{file} cannot be loaded: {error}", "train or fetch the model again") from error

    def logits(self, input_ids: Ids, attention_mask: Ids) -> FloatArray:
        """Return fp32 logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        padding = -input_ids.shape[1] % LENGTH_STEP
        if padding:
            # Masked positions are ignored: any id will do.
            input_ids, attention_mask = (np.pad(array, ((0, 0), (0, padding))) for array in (input_ids, attention_mask))
        self._request.infer({"input_ids": input_ids, "attention_mask": attention_mask})
        return np.array(self._request.get_output_tensor(0).data, dtype=np.float32)


def _import_openvino() -> Any:
    # If this package is installed, OpenVINO reports its import to its vendor. It works without it.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino") from error
    return openvino
