"""Stands where torch would in a server that answers without it; installed there as `torch.py`.

TorchServe's worker imports torch for one `isinstance(answer, torch.Tensor)`. The default runtime is ONNX Runtime, so
no answer ever is one: a gigabyte of torch need not be shipped, nor loaded for a second, to say so.
"""


class Tensor:
    """No object is an instance of this."""
