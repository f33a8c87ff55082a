"""The metadata of a file that is being written: of the file, and of each frame.

They lie in the footer, which is written last, so that they may change until then. A plain MRC file has no footer: its
metadata is JSON in the extended header, which comes before the first frame and is settled with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from mrcz.container.metadata import pack, unpack

__all__ = ["FRAMES", "WriterMetadata", "choose_frames", "frames_of"]

FRAMES = "frame_metadata"
"""Key of the metadata map under which the metadata of frames are stored: a list with a map, or nil, a frame."""

_LARGEST = 256 << 20  # bytes of packed metadata of all frames; readers take 1 GiB of everything together


class WriterMetadata(MutableMapping):
    """A dict that refuses at once what the file could not keep.

    Parameters
    ----------
    values : mapping
        A list of dicts under `FRAMES` is that of the first frames.
    path : str
        For errors.
    plain : bool
        The file has no footer: nothing can change any more.

    Raises
    ------
    TypeError, ValueError
        Values that cannot be stored.
    """

    def __init__(self, values: Mapping[str, Any], path: str, *, plain: bool) -> None:
        self._path, self._plain = path, plain
        self._values = dict(values)
        self._frames: list[bytes] = []  # each packed when it was given: callers use one dict again and again
        self._nbytes = 0
        given = self._values.get(FRAMES)
        if not plain and isinstance(given, (list, tuple)) and all(isinstance(v, Mapping | None) for v in given):
            del self._values[FRAMES]
            for number, frame in enumerate(given):
                self.set_frame(number, frame)
        if not plain:
            self.packed()

    def __getitem__(self, key: Any) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(dict(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._may_change()
        if key == FRAMES and self._frames:
            raise ValueError(f"{self._path}: {FRAMES!r} is given with the frames: append(frame, metadata=…)")
        pack({key: value})
        self._values[key] = value

    def __ior__(self, other: Mapping[Any, Any]) -> WriterMetadata:
        self.update(other)
        return self

    def __delitem__(self, key: Any) -> None:
        self._may_change()
        del self._values[key]

    def _may_change(self) -> None:
        if self._plain:
            raise ValueError(
                f"{self._path} is a plain MRC file, whose metadata is written before its first frame: give it when the "
                "file is opened, or write .mrcz, where it can change until the file is closed"
            )

    def frame(self, values: Mapping[str, Any]) -> bytes:
        """Metadata of a frame, packed, for `set_frame`; an error where they cannot be stored."""
        if self._plain:
            raise ValueError(f"{self._path}: a plain MRC file has no place for metadata of frames; write .mrcz")
        if not isinstance(values, Mapping):
            raise TypeError(f"metadata of a frame is {type(values).__name__}, expected a dict")
        if FRAMES in self._values:
            raise ValueError(f"{self._path}: its metadata has an entry {FRAMES!r} of another kind")
        packed = pack(dict(values))
        if self._nbytes + len(packed) > _LARGEST:
            raise ValueError(f"{self._path}: metadata of frames takes more than {_LARGEST >> 20} MiB")
        return packed

    def set_frame(self, number: int, values: Mapping[str, Any] | bytes | None) -> None:
        """Give a frame its metadata."""
        if values is None:
            return
        packed = values if isinstance(values, bytes) else self.frame(values)
        self._frames.extend([_NIL] * (number + 1 - len(self._frames)))
        self._nbytes += len(packed) - len(self._frames[number])
        self._frames[number] = packed

    def keep_frames(self, count: int) -> None:
        """Forget what was said of frames behind these."""
        del self._frames[count:]

    def packed(self) -> bytes | None:
        """All of it as MessagePack; None if there is nothing.

        Raises
        ------
        TypeError, ValueError
            Something inside a value was changed to what cannot be stored.
        """
        values = dict(self._values)
        if not values and not self._frames:
            return None
        packed = pack(values)
        if self._frames:
            import msgpack

            packer = msgpack.Packer()
            head = len(packer.pack_map_header(len(values)))
            packed = b"".join(
                (packer.pack_map_header(len(values) + 1), packed[head:], packer.pack(FRAMES))
                + (packer.pack_array_header(len(self._frames)), *self._frames)
            )
        return packed

    def drop_unstorable(self) -> list[str]:
        """Remove what cannot be stored, so that the rest can; its keys."""
        dropped = []
        for key, value in list(self._values.items()):
            try:
                pack({key: value})
            except (TypeError, ValueError):
                dropped.append(repr(key))
                del self._values[key]
        return dropped


_NIL = b"\xc0"  # of MessagePack


def frames_of(metadata: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """The metadata of each of so many frames, from those of a file; an empty dict where there are none."""
    found = metadata.get(FRAMES)
    if not isinstance(found, Sequence) or isinstance(found, (str, bytes)):
        found = []
    frames = [dict(item) if isinstance(item, Mapping) else {} for item in found[:count]]
    return frames + [{} for _ in range(count - len(frames))]


def choose_frames(packed: bytes, numbers: Sequence[int | None]) -> bytes:
    """Packed metadata of a file of which these frames are left, in their new order; None is a frame nobody knows."""
    metadata = unpack(packed)
    if not isinstance(metadata, dict) or not isinstance(found := metadata.get(FRAMES), list):
        return packed
    metadata[FRAMES] = [found[n] if n is not None and n < len(found) else None for n in numbers]
    return pack(metadata)
