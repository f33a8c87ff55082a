"""A process that runs methods and times them inside itself, so that every program is measured alike in its own place.

Started by `codec.py` and `paper.py` with the Python of either environment; takes one JSON request a line on standard
input, answers one line on standard output.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from environment import free_memory
from methods import CORES, Method, correction, methods, old, ours, remove, size_of


def reset_peak() -> int:
    """Forget the peak of this process's memory; what it holds now, in bytes.

    ``ru_maxrss`` alone would not do: on Linux a process inherits that of the one that started it.
    """
    if os.path.exists("/proc/self/clear_refs"):
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        return _status("VmRSS")
    return peak_memory()


def peak_memory() -> int:
    """Most bytes this process held since `reset_peak`; 0 where the system does not say."""
    if os.path.exists("/proc/self/status"):
        return _status("VmHWM")
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


def warm(nbytes: int) -> None:
    """Touch at least as much memory as is about to be used, and give it back.

    A virtual machine hands free pages to its host within seconds, and their next first touch runs at a tenth of the
    speed of memory: without this, that is what would be measured, of whichever program came after a pause.
    """
    free = free_memory()
    if free is not None:
        nbytes = min(nbytes, free - (1 << 29))
    if nbytes > 0:
        np.empty(nbytes, np.uint8).fill(1)


class Worker:
    def __init__(self) -> None:
        self.stack: np.ndarray | None = None
        self.packed: np.ndarray | None = None
        self.gain: np.ndarray | None = None
        self.buffers: dict[tuple, np.ndarray] = {}
        self.known = methods()

    def load(self, path: str, gain: str | None = None, frames: int | None = None) -> dict[str, Any]:
        self.stack = self.packed = self.gain = None
        self.buffers.clear()
        if frames is None:
            self.stack = np.load(path)
        else:
            self.stack = np.load(path, mmap_mode="r")[:frames].copy()
        if gain is not None:
            self.gain = np.load(gain)
        return {"peak": peak_memory()}

    def made(self, spec: dict[str, Any]) -> Method:
        """The method of a name, or one put together from options (for the paper's grids)."""
        if "name" in spec:
            return self.known[spec["name"]]
        options = dict(spec["options"])
        if spec["environment"] == "new":
            return ours(**options)
        import mrcz.ioMRC

        mrcz.ioMRC.BLOSC_BLOCK = options.pop("blocksize", 65536)
        return old(options.pop("compressor"), options.pop("clevel"), **options)

    def pixels(self, method: Method, frames: int | None) -> np.ndarray:
        stack = self.stack
        assert stack is not None
        if method.packed:
            if self.packed is None:
                self.packed = np.minimum(stack, 15).view(np.uint8)
            stack = self.packed.view(np.int8) if method.signed else self.packed
        return stack if frames is None else stack[:frames]

    def new_pages(self, itemsize: int, touch: int = 0) -> dict[str, Any]:
        """How long all cores need to get the memory of a new array of the stack's shape: one write a page."""
        assert self.stack is not None
        nbytes = self.stack.size * itemsize
        gc.collect()
        warm(max(nbytes * 5 // 4, touch))
        start = time.perf_counter()
        pages = np.empty(nbytes, np.uint8)[::4096]
        parts = np.array_split(pages, CORES)
        with ThreadPoolExecutor(CORES) as pool:
            list(pool.map(lambda part: part.fill(1), parts))
        return {"seconds": time.perf_counter() - start}

    def run(
        self,
        spec: dict[str, Any],
        operation: str,
        path: str,
        frames: int | None = None,
        check: bool = False,
        touch: int = 0,
        quiet: bool = False,
        durable: bool = False,
    ) -> dict[str, Any]:
        method = self.made(spec)
        gc.collect()
        if operation == "write":
            stack = self.pixels(method, frames)
            remove(path)
            if method.command and not os.path.exists(path + ".source"):
                stack.tofile(path + ".source")
            warm(max(stack.nbytes * 5 // 4, touch))
            if quiet:
                os.sync()  # what others left for the disk is not this one's to wait for
            before, start = reset_peak(), time.perf_counter()
            if durable:
                method.write_through(stack, path)
            else:
                method.write(stack, path)
            seconds = time.perf_counter() - start
            return {"seconds": seconds, "bytes": size_of(path), "peak": peak_memory() - before}
        out = gain = None
        floats = operation.startswith(("× gain", "corrected"))
        if operation.endswith(" out"):
            like = self.pixels(method, frames)
            key = (like.shape, "f4" if floats else like.dtype.str)
            if key not in self.buffers:
                self.buffers[key] = np.ones(key[0], key[1])
            out = self.buffers[key]
        if floats:
            gain = self.gain
        call = method.operations.get(operation.removesuffix(" out") if floats else operation)
        if operation.startswith("corrected"):
            correction(gain)  # made outside the clock
        if out is None and self.stack is not None:
            pixels = self.pixels(method, frames)
            warm(max(pixels.size * 5 if gain is not None else pixels.nbytes * 5 // 4, touch))
        before, start = reset_peak(), time.perf_counter()
        result = method.read(path) if operation == "read" else call(path, out, gain)
        seconds = time.perf_counter() - start
        peak = peak_memory() - before
        if check:
            self.compare(method, operation, result, frames)
        return {"seconds": seconds, "peak": peak, "result": 0 if out is not None else int(result.nbytes)}

    def compare(self, method: Method, operation: str, result: np.ndarray, frames: int | None) -> None:
        """What came back is what was stored."""
        stack = self.pixels(method, frames)
        if "gain" in operation:
            assert all(np.array_equal(r, s * self.gain) for r, s in zip(result, stack, strict=True)), "× gain differs"
        elif operation.startswith("corrected"):
            apply = correction(self.gain).apply_frame
            assert all(np.array_equal(r, apply(s)) for r, s in zip(result, stack, strict=True)), "corrected differs"
        elif operation == "sum":
            exact = stack.sum(axis=0, dtype=np.float64 if stack.dtype.kind == "f" else np.int64)
            assert np.allclose(result, exact, rtol=1e-5), "sum differs"
        else:
            same = np.array_equal(np.asarray(result).reshape(-1).view(np.uint8), stack.reshape(-1).view(np.uint8))
            assert same, f"{operation} differs"


def main() -> None:
    # Programs may print: only answers go to the pipe.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        action = request.pop("do")
        try:
            answer = getattr(worker, action)(**request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(BrokenPipeError):
            answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
