"""ONNX Runtime: the default where a model answers, since it needs neither torch nor transformers."""

from pathlib import Path

from newsbert import config
from newsbert.errors import ModelError
from newsbert.evaluation import FloatArray
from newsbert.runtimes.tokenization import Ids

config.quiet_onnxruntime()  # it reads the environment when it is imported
import onnxruntime  # noqa: E402


class OnnxGraph:
    """An ONNX graph, on the CPU unless ONNX Runtime was built for CUDA.

    Args:
        file: `model.onnx`, inputs `input_ids` and `attention_mask` `(batch, sequence)`, output `logits`.
        threads: Threads for one batch; ONNX Runtime's own choice if not given.

    Raises:
        ModelError: If the file is missing or no graph.
    """

    def __init__(self, file: Path, threads: int | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=_providers())
        except Exception as error:  # ONNX Runtime's own exceptions share no base class but this
            raise ModelError(f"{file} cannot be loaded: {error}", "train or fetch the model again") from error

    def logits(self, input_ids: Ids, attention_mask: Ids) -> FloatArray:
        """Return fp32 logits `(batch, num_labels)` of ids and mask `(batch, sequence)`."""
        (logits,) = self._session.run(["logits"], {"input_ids": input_ids, "attention_mask": attention_mask})
        return logits  # type: ignore[no-any-return]


def _providers() -> list[str]:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return ["CPUExecutionProvider"]
    onnxruntime.preload_dlls()  # CUDA's libraries come as Python packages
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]
