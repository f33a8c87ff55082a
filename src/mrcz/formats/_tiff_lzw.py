"""Whether a strip of LZW can be decoded without harm: imagecodecs takes any code for the first one after a CLEAR.

Such a code stands for a text that nobody wrote; the decoder follows a pointer that was never set, and the process ends
or its memory comes out as pixels (imagecodecs 2026.3.6 and before). All other codes it compares with its table. So
CLEARs are found here, by the widths that codes have by then, and what follows each is looked at.

Codes as TIFF 6.0, section 13, has them: 9 bits after a CLEAR, one more with the 511th, 1023rd and 2047th text; in
files of before 1988 the lowest bit comes first, and each change one text later.
"""

from __future__ import annotations

import functools

import numpy as np

__all__ = ["check_lzw"]

_CLEAR, _END, _FIRST = 256, 257, 258
_CODES = 5120 - _FIRST + 1  # of a table, after which imagecodecs gives up


@functools.cache
def _places(early: bool, phase: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where the codes after a first one lie that begins at bit `phase` of a byte: byte, shift in four bytes from there,
    mask, and the bit at which each ends."""
    sizes = _FIRST + np.arange(_CODES)  # of the table when a code is read
    late = 0 if early else 1
    widths = 9 + (sizes >= 511 + late).astype(np.int64) + (sizes >= 1023 + late) + (sizes >= 2047 + late)
    ends = phase + 9 + np.cumsum(widths)
    begins = ends - widths
    shifts = 32 - begins % 8 - widths if early else begins % 8
    return begins // 8, shifts.astype(np.uint32), ((1 << widths) - 1).astype(np.uint32), ends


def check_lzw(raw: bytes) -> None:
    """Refuse a strip whose first code after a CLEAR is none of a byte.

    Raises
    ------
    ValueError
        It says at which bit.
    """
    if len(raw) < 2:
        return
    early = not (raw[0] == 0 and raw[1] & 1)
    data = np.frombuffer(raw, np.uint8)
    at, end = 9, 8 * len(raw)  # imagecodecs refuses what does not begin with a CLEAR
    while at + 9 <= end:
        two = raw[at // 8 : at // 8 + 2]
        if early:
            first = int.from_bytes(two, "big") >> (7 - at % 8) & 511
        else:
            first = int.from_bytes(two, "little") >> at % 8 & 511
        if first == _END:
            return
        if first == _CLEAR:
            at += 9
            continue
        if first >= _FIRST:
            raise ValueError(f"code {first} at bit {at} follows a CLEAR")
        places, shifts, masks, ends = _places(early, at % 8)
        base = at // 8
        count = int(np.searchsorted(ends, end - 8 * base, side="right"))
        if not count:
            return
        words = _words(data[base : base + int(places[count - 1]) + 4], early)
        codes = words[places[:count]] >> shifts[:count] & masks[:count]
        # One comparison finds both: 256 and 257 differ in their last bit.
        found = np.flatnonzero(codes >> np.uint32(1) == _CLEAR >> 1)
        if not found.size or codes[found[0]] == _END:
            return
        at = 8 * base + int(ends[found[0]])


def _words(data: np.ndarray, early: bool) -> np.ndarray:
    """The four bytes from each byte on as a number; zeros follow the last."""
    padded = np.zeros(data.size + 4, np.uint32)
    padded[: data.size] = data
    if early:
        pairs = padded[:-1] << np.uint32(8) | padded[1:]
        return np.asarray(pairs[:-2] << np.uint32(16) | pairs[2:])
    pairs = padded[:-1] | padded[1:] << np.uint32(8)
    return np.asarray(pairs[:-2] | pairs[2:] << np.uint32(16))
