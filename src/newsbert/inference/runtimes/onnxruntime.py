"""ONNX Runtime: the default for inference, since it needs neither torch nor transformers."""

from pathlib import Path
from typing import Any

from newsbert.core import environment
from newsbert.core.types import FloatArray
from newsbert.errors import ModelError
from newsbert.inference.tokenization import Ids

environment.silence_onnxruntime()  # it reads the environment when it is imported
import onnxruntime  # noqa: E402

_SPIN_US = "50"


def session(graph: Path | bytes, threads: int | None = None) -> Any:
    """Load a graph, on the CPU unless ONNX Runtime was built for CUDA.

    Args:
        graph: A file, or its content.
        threads: Number of threads for one batch; defaults to ONNX Runtime's own choice.

    Raises:
        ModelError: If the file is missing or is not a graph.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    # Spinning threads take the cores from the server in front, and half the speed where other processes compute. From
    # one operator to the next, however, a short spin costs less than sleep and wake-up. (Known since 1.26.)
    options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    try:
        return onnxruntime.InferenceSession(
            graph if isinstance(graph, bytes) else str(graph),
            options,
            providers=_list_providers(),
            # The fusion of sum and normalization takes ten times as long on a CPU as the two separate operators.
            disabled_optimizers=["SkipLayerNormFusion"],
        )
    except Exception as error:  # ONNX Runtime's own exceptions have no other common base class
        name = "the graph" if isinstance(graph, bytes) else graph
        raise ModelError(f"{name} cannot be loaded: {error}", "train or fetch the model again") from error


class OnnxGraph:
    """An ONNX graph, fp32 or quantized.

    Args:
        file: Graph with the inputs `input_ids` and `attention_mask` `(batch, sequence)` and the output `logits`.
        threads: Number of threads, as `session` takes it.

    Raises:
        ModelError: If the file is missing or is not a graph.
    """

    def __init__(self, file: Path, threads: int | None = None) -> None:
        self._session = session(file, threads)

    def logits(self, input_ids: Ids, attention_mask: Ids) -> FloatArray:
        """Return fp32 logits `(batch, num_labels)` of ids and mask `(batch, sequence)`.

        Raises:
            ModelError: If the graph does not accept them.
        """
        try:
            (logits,) = self._session.run(["logits"], {"input_ids": input_ids, "attention_mask": attention_mask})
        except Exception as error:  # ONNX Runtime's own exceptions have no other common base class
            raise ModelError(f"the graph fails: {error}", "train or fetch the model again") from error
        return logits  # type: ignore[no-any-return]


def _list_providers() -> list[str]:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return ["CPUExecutionProvider"]
    onnxruntime.preload_dlls()  # CUDA's libraries come as Python packages
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]
