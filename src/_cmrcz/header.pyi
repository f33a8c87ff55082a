from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_Bytes: TypeAlias = NDArray[np.uint8] | bytes | bytearray | memoryview

FORMAT_NAMES: tuple[str, ...]

def parse(head: _Bytes) -> dict[str, Any]: ...
