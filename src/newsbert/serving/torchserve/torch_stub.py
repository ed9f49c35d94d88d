"""Stub of torch for a server that answers without it; installed there as `torch.py`.

TorchServe's worker imports torch for one `isinstance(answer, torch.Tensor)`. The default runtime is ONNX Runtime, so
no answer is ever a tensor. The stub saves a gigabyte of torch, and the second that loading it takes.
"""


class Tensor:
    """A class without instances."""
