"""Stands where torch would in an image that serves without it.

TorchServe's worker imports torch for one `isinstance(answer, torch.Tensor)`. The default runtime is ONNX Runtime, so
no answer ever is one, and a gigabyte of torch need not be shipped to say so.
"""


class Tensor:
    """No object is an instance of this."""
