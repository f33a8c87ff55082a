from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def render_frames(
    frames: Sequence[bytes],
    out: NDArray[Any],
    *,
    shape: tuple[int, int],
    code: tuple[int, int, int],
    wasteful: bool = False,
    upsampling: int = 1,
    before: int = 0,
) -> int: ...
def add_frames(
    frames: Sequence[bytes],
    total: NDArray[np.int64],
    *,
    shape: tuple[int, int],
    code: tuple[int, int, int],
    wasteful: bool = False,
    upsampling: int = 1,
) -> int: ...
def walk(
    frame: bytes, *, shape: tuple[int, int], code: tuple[int, int, int], wasteful: bool = False
) -> tuple[int, int]: ...
def list_events(
    frame: bytes,
    events: NDArray[np.uint64],
    *,
    shape: tuple[int, int],
    code: tuple[int, int, int],
    wasteful: bool = False,
) -> int: ...
