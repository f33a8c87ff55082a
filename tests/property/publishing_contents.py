"""What the files of test_publishing.py hold: pixels and a header of their own, known again wherever they are found."""

import gzip
import warnings
from pathlib import Path

import numpy as np

import mrcz
from mrcz.check.verify import verify

SHAPE = (4, 32, 32)


class Contents:
    """Plain MRC files by number; each with pixels and a label of its own, all of one size."""

    def __init__(self, scratch: Path) -> None:
        template = scratch / "template.mrc"
        mrcz.write(template, np.zeros(SHAPE, np.int16), pixel_size=1.5, labels=["source 00000000"])
        self._template = template.read_bytes()
        self._label = self._template.index(b"source 00000000")
        self._plain: dict[int, bytes] = {}
        self._numbers: dict[bytes, int] = {}
        self._seen: dict[bytes, tuple[int | None, int]] = {}

    def plain(self, number: int) -> bytes:
        if number not in self._plain:
            raw = bytearray(self._template)
            raw[self._label : self._label + 15] = b"source %08d" % number
            raw[1024:] = np.random.default_rng(number).poisson(6.0, SHAPE).astype("<i2").tobytes()
            self._plain[number] = bytes(raw)
            self._numbers[bytes(raw)] = number
        return self._plain[number]

    def look(self, path: str) -> tuple[int | None, int]:
        """Number of the content in a file, None if it is whole in none; and how many frames it has."""
        with open(path, "rb") as file:
            raw = file.read()
        if raw not in self._seen:
            self._seen[raw] = self._look(path, raw)
        return self._seen[raw]

    def _look(self, path: str, raw: bytes) -> tuple[int | None, int]:
        if raw[:2] == b"\x1f\x8b":
            try:
                raw = gzip.decompress(raw)
            except (OSError, EOFError):
                return None, 0
        if raw in self._numbers:
            return self._numbers[raw], SHAPE[0]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with mrcz.open(path, n_threads=1) as reader:
                    header = reader.footer.source_header
                    stored = reader.read().astype("<i2", copy=False)
                if not verify(path, n_threads=1).ok:
                    return None, 0
        except (mrcz.MrczError, Warning, OSError, AttributeError):
            return None, 0
        if any((frame != marks(k)).any() for k, frame in enumerate(stored[SHAPE[0] :])):
            return None, 0
        return self._numbers.get(header + stored[: SHAPE[0]].tobytes()), len(stored)


def marks(k: int) -> np.ndarray:
    """What an appender adds as the k-th frame after those of the source."""
    return np.full(SHAPE[1:], 1000 + k, np.int16)
