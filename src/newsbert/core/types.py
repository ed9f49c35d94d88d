"""Types of arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.integer[Any]]

FloatArray = NDArray[np.float32]

LabelIds = Sequence[int] | IntArray
