"""A frame's pixels as the bytes that stood for them in a file of another format, part by part."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from mrcz.container.pieces import LzwWay, PiecesRecord
from mrcz.errors import FormatError

__all__ = ["parts_of"]


def parts_of(frame: np.ndarray, record: PiecesRecord) -> list[Any]:
    """The bytes of each part of a frame, as the file had them.

    Raises
    ------
    FormatError
        No such bytes can be of these pixels.
    """
    if frame.dtype.newbyteorder("=") != record.dtype.newbyteorder("="):
        raise FormatError(f"pieces: pixels of {frame.dtype}, expected {record.dtype}")
    if record.packing.startswith("words"):
        return [_words(frame, record.packing)]
    if record.turned:
        frame = frame[::-1]
    width = record.width
    if record.packing == "4 bits":
        if frame.shape[1] % 2 or width % 2 or frame.dtype != np.uint8 or (frame > 15).any():
            raise FormatError("pieces: pixels that are no two to a byte")
        frame, width = frame[:, ::2] | frame[:, 1::2] << 4, width // 2
    elif frame.dtype != record.dtype:
        frame = frame.astype(record.dtype)  # the order of the bytes
    ny, nx = frame.shape[:2]
    found = []
    for top in range(0, ny, record.height):
        for left in range(0, nx, width):
            part = frame[top : top + record.height, left : left + width]
            if record.tiled and part.shape[:2] != (record.height, width):
                filled = np.zeros((record.height, width, *part.shape[2:]), part.dtype)
                filled[: part.shape[0], : part.shape[1]] = part
                part = filled
            if record.differences:
                part = _differences(part)
            flat = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
            found.append(flat.data if record.lzw is None else _lzw(flat, record.lzw))
    return found


def _differences(part: np.ndarray) -> np.ndarray:
    """Each sample less the one left of it, modulo 2**bits."""
    if part.dtype.kind == "c":
        raise FormatError("pieces: differences of complex pixels")
    whole = part.view(part.dtype.str.replace("f", "u").replace("i", "u"))
    made = whole.copy()
    made[:, 1:] = whole[:, 1:] - whole[:, :-1]
    return made


def _lzw(data: np.ndarray, way: LzwWay) -> bytes:
    from _cmrcz.lzw import encode

    # A code of 12 bits a byte at most, one Clear in so many texts, and what ends it.
    room = np.empty(data.size * 2 + 64 + data.size * 2 // (way.full - 258), np.uint8)
    made = encode(data, room, **asdict(way))
    assert made >= 0
    return room[:made].tobytes()


def _words(frame: np.ndarray, packing: str) -> Any:
    """Pixels as the words of 64 bits in which they left the chips: what `mrcz.formats.mib` undoes."""
    _, bits, *quad = packing.split()
    depth = int(bits)
    if quad:
        ny, nx = frame.shape
        if ny % 2 or nx % 2:
            raise FormatError("pieces: a frame of four chips has even sides")
        top, bottom = frame[: ny // 2], frame[ny // 2 :][::-1, ::-1]
        frame = np.hstack([bottom[:, : nx // 2], bottom[:, nx // 2 :], top[:, nx // 2 :], top[:, : nx // 2]])
    many = {1: 64, 6: 8, 12: 4}[depth]
    wanted = np.dtype("u2") if depth == 12 else np.dtype("u1")
    if frame.size % many or frame.dtype.newbyteorder("=") != wanted or int(frame.max(initial=0)) >> depth:
        raise FormatError(f"pieces: pixels that are no whole words of counters of {depth} bits")
    flat = np.ascontiguousarray(frame).reshape(-1)
    if depth == 1:
        return np.packbits(flat, bitorder="little").reshape(-1, 8)[:, ::-1].tobytes()
    if depth == 6:
        return flat.reshape(-1, 8)[:, ::-1].tobytes()
    return flat.reshape(-1, 4)[:, ::-1].astype(">u2").tobytes()
