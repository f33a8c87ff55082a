"""Metadata of our own <-> bytes: MessagePack in the footer, JSON in the extended header.

Metadata goes into the footer as MessagePack (:func:`pack`, :func:`unpack`), or into a ``json`` extended header, which
is where mrcz before 1.0 kept it.
"""

from __future__ import annotations

import datetime as dt
import enum
import functools
import struct
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mrcz.errors import FormatError

__all__ = ["decode_json", "encode_json", "json_part", "pack", "unpack"]

# ---- json: what mrcz before 1.0 wrote ----------------------------------------------------------------------------


def decode_json(data: bytes) -> Any:
    """A ``json`` extended header as Python values; FormatError if it is none."""
    import json

    try:
        return json.loads(data.rstrip(b"\0 ").decode("utf-8")) if data.strip(b"\0 ") else {}
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the json extended header of {len(data)} bytes is damaged: {error}") from None


def _json_default(value: Any) -> Any:
    if hasattr(value, "serialize"):
        return value.serialize()
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__array_interface__"):
        return value.tolist()
    if isinstance(value, enum.Enum):
        return f"Enum.{type(value).__name__}.{value.name}"
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"metadata of type {type(value).__name__} cannot be written as JSON")


def encode_json(metadata: Mapping[str, Any], *, align: int = 64) -> bytes:
    """Metadata for a ``json`` extended header, as mrcz before 1.0 reads it.

    Arrays and NumPy scalars become lists and numbers, Enum members ``"Enum.Class.NAME"``, dates ISO text, and an object
    with a ``serialize()`` method what that returns.

    Parameters
    ----------
    metadata : dict
    align : int
        The bytes are padded with blanks to a multiple of this, so that the pixels after them stay aligned.

    Raises
    ------
    TypeError
        A value that JSON has no form for.
    """
    import json

    text = json.dumps(dict(metadata), default=_json_default).encode("utf-8")
    return text + b" " * (-len(text) % max(1, align))


def json_part(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What of some metadata JSON has a form for: entries with another kind of value (bytes, say) or key are left out.

    For the copy in the extended header, which readers that know no footer take; the footer holds everything.
    """
    import json

    part = {}
    for key, value in metadata.items():
        if not isinstance(key, (str, int, float, bool, type(None))):
            continue
        if isinstance(value, Mapping):
            part[key] = json_part(value)
            continue
        try:
            json.dumps(value, default=_json_default)
        except TypeError:
            continue
        part[key] = value
    return part


# ---- MessagePack -------------------------------------------------------------------------------------------------
#
# Plain values are plain MessagePack, which any language reads. What MessagePack lacks is an extension type, so that
# Python gets back the type it gave:

_NDARRAY = 1  # [dtype descr, shape, bytes in C order]
_SCALAR = 2  # dtype as text, NUL, bytes
_TUPLE = 3  # the array of its items
_TIME = 4  # class of datetime, a blank, ISO text (timedelta: days, seconds, microseconds)
_ENUM = 5  # [module, class, name or nil, value or nil]
_COMPLEX = 6  # two little-endian doubles
_INTEGER = 7  # hexadecimal text, where 64 bits do not do
_SET = 8  # the array of "set" or "frozenset" and its items

_MAX_DEPTH = 64  # extension types inside each other
_LIMIT = 1 << 28  # bytes of packed metadata that we take
_MAX_BITS = 14_000  # of an integer: Python refuses to show larger ones (of more than 4300 digits)
_SMALL = 256
# What the packer takes without a question, its own types apart.
_PLAIN = frozenset((dict, list, str, bytes, bytearray, memoryview, float, bool, type(None)))


class _Encoder:
    """MessagePack with one packer a level, since a packer may not be entered twice."""

    def __init__(self) -> None:
        import msgpack

        self._ext = msgpack.ExtType
        self._plain = _PLAIN | {msgpack.ExtType, msgpack.Timestamp}
        self._packers: list[Any] = []
        self._depth = 0

    def pack(self, value: Any) -> bytes:
        depth = self._depth
        if depth == len(self._packers):
            if depth == _MAX_DEPTH:
                raise ValueError(f"metadata nests deeper than {_MAX_DEPTH} levels")
            import msgpack

            # strict_types: subclasses go to _default too; np.float64 is a float, IntEnum an int, a tuple no list.
            new = msgpack.Packer(default=self._default, strict_types=True, unicode_errors="surrogatepass")
            self._packers.append(new)
        self._depth = depth + 1
        try:
            packed: bytes = self._packers[depth].pack(value)
            return packed
        finally:
            self._depth = depth

    def _default(self, value: Any) -> Any:
        """What the packer does not know -> something it knows, or an extension type."""
        kind: Any = type(value)
        if kind is tuple:
            return self._ext(_TUPLE, self.pack(list(value)))
        prefix = _scalar_prefix(kind)
        if prefix:
            return self._ext(_SCALAR, prefix + value.tobytes())
        if isinstance(value, enum.Enum):
            plain = value.value if isinstance(value.value, (str, int, float)) else None
            return self._ext(_ENUM, self.pack([kind.__module__, kind.__qualname__, value.name, plain]))
        if isinstance(value, np.generic):
            if value.dtype.hasobject or value.dtype.names is not None:
                return self._array(np.asarray(value))
            return self._ext(_SCALAR, value.dtype.str.encode("ascii") + b"\0" + value.tobytes())
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, int):
            if -(2**63) <= value < 2**64:
                return int(value)
            if value.bit_length() > _MAX_BITS:
                raise ValueError(f"an integer of {value.bit_length()} bits in the metadata: at most {_MAX_BITS}")
            return self._ext(_INTEGER, hex(value).encode("ascii"))
        if isinstance(value, complex):
            return self._ext(_COMPLEX, struct.pack("<2d", value.real, value.imag))
        if isinstance(value, (dt.date, dt.time, dt.timedelta)):
            return self._ext(_TIME, _time_text(value).encode("ascii"))
        if isinstance(value, (set, frozenset)):
            name = "frozenset" if isinstance(value, frozenset) else "set"
            return self._ext(_SET, self.pack([name, *value]))
        if isinstance(value, tuple):
            return self._ext(_TUPLE, self.pack(list(value)))
        if isinstance(value, float):
            return float(value)
        if isinstance(value, str):
            return str(value)
        if isinstance(value, bytes):
            return bytes(value)
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, Sequence):
            return list(value)
        if hasattr(value, "serialize"):
            return self._known(value.serialize())
        if hasattr(value, "__fspath__"):
            return value.__fspath__()
        if hasattr(value, "__array_interface__") or hasattr(value, "__array__"):
            return self._array(np.asarray(value))
        raise TypeError(f"metadata of type {kind.__name__} cannot be stored")

    def _known(self, value: Any) -> Any:
        """What an object gave in its place, as the packer takes it, which asks `_default` once a value."""
        return value if type(value) in self._plain else self._default(value)

    def _array(self, value: np.ndarray) -> Any:
        if value.dtype.hasobject:
            return self._known(value.tolist())
        descr = np.lib.format.dtype_to_descr(value.dtype)
        return self._ext(_NDARRAY, self.pack([_plain(descr), list(value.shape), value.tobytes()]))


@functools.lru_cache(maxsize=64)
def _scalar_prefix(kind: type) -> bytes:
    """How a NumPy number of this type begins; empty for all other types."""
    if not issubclass(kind, (np.number, np.bool_)) or issubclass(kind, np.timedelta64):
        return b""
    return np.dtype(kind).str.encode("ascii") + b"\0"


def _plain(descr: Any) -> Any:
    """A dtype description in lists alone, which is how it comes back."""
    return [_plain(item) for item in descr] if isinstance(descr, (list, tuple)) else descr


def _time_text(value: Any) -> str:
    if isinstance(value, dt.timedelta):
        return f"timedelta {value.days} {value.seconds} {value.microseconds}"
    for cls in (dt.datetime, dt.date, dt.time):  # a datetime is a date too
        if isinstance(value, cls):
            return f"{cls.__name__} {value.isoformat()}"
    raise TypeError(f"metadata of type {type(value).__name__} cannot be stored")


def pack(metadata: Any) -> bytes:
    """Metadata as MessagePack, so that :func:`unpack` gives the same values with the same types.

    Dicts (nested, any hashable keys), lists, tuples, sets, str, bytes, bool, None, int (14 000 bits), float, complex,
    NumPy arrays and scalars, datetime objects, Enum members. Other mappings become dicts, other sequences and arrays of
    objects lists, what offers NumPy's array interface arrays; subclasses become the type they derive from.

    Raises
    ------
    TypeError
        A value of another type.
    ValueError
        Nested too deep, or into itself.
    """
    try:
        return _Encoder().pack(metadata)
    except RecursionError as error:
        raise ValueError(f"metadata cannot be stored: {error}") from None


def unpack(data: bytes, *, limit: int = _LIMIT) -> Any:
    """What :func:`pack` stored.

    Nothing is run or imported on behalf of the bytes: an Enum member comes back as itself where its class is already
    loaded, else as the text ``"Enum.Class.NAME"``. Memory stays in proportion to `data`.

    Parameters
    ----------
    data : bytes-like
    limit : int
        Refuse more bytes than this.

    Returns
    -------
    object
        Arrays are writable and own their memory.

    Raises
    ------
    FormatError
        The bytes are damaged.
    """
    if len(data) > limit:
        raise FormatError(f"{len(data)} bytes of metadata, more than the limit of {limit}")
    try:
        return _unpack(data, 0)
    except FormatError:
        raise
    except Exception as error:  # msgpack raises many kinds for bytes that are none of its own
        raise FormatError(f"the metadata of {len(data)} bytes is damaged: {type(error).__name__}: {error}") from None


def _unpack(data: Any, depth: int) -> Any:
    import msgpack

    if depth > _MAX_DEPTH:
        raise FormatError(f"metadata nests deeper than {_MAX_DEPTH} levels")
    n = len(data)
    if n > _SMALL or depth == 0:
        # A list is allocated at the length it claims. Walking the bytes first, which builds nothing, makes sure that
        # every item claimed is there. What a few bytes can claim does not matter.
        walker = msgpack.Unpacker(None, max_buffer_size=max(n, 1))
        walker.feed(data)
        walker.skip()
        if walker.tell() != n:
            raise FormatError(f"{n - walker.tell()} bytes after the metadata")
    return msgpack.unpackb(
        data, ext_hook=_hook(depth), strict_map_key=False, unicode_errors="surrogatepass", timestamp=3
    )


@functools.lru_cache(maxsize=_MAX_DEPTH + 1)
def _hook(depth: int) -> Callable[[int, bytes], Any]:
    """For the extension types inside a value at this depth."""
    import msgpack

    def from_ext(code: int, payload: bytes) -> Any:
        decode = _DECODERS.get(code)
        return decode(payload, depth + 1) if decode else msgpack.ExtType(code, bytes(payload))

    return from_ext


def _nested(payload: bytes, depth: int) -> list[Any]:
    value = _unpack(payload, depth)
    if not isinstance(value, list):
        raise FormatError(f"a {type(value).__name__} where a list belongs")
    return value


def _scalar_from(payload: bytes, depth: int) -> Any:
    text, _, raw = payload.partition(b"\0")
    dtype = _scalar_dtype(text)
    if dtype.itemsize == 0:  # an empty text
        return dtype.type()
    if dtype.itemsize != len(raw):
        raise FormatError(f"a scalar of {dtype} in {len(raw)} bytes")
    return np.frombuffer(raw, dtype)[0]


@functools.lru_cache(maxsize=256)
def _scalar_dtype(text: bytes) -> np.dtype:
    dtype = np.dtype(text.decode("ascii"))
    if dtype.hasobject:
        raise FormatError("a Python object")
    return dtype


def _tuple_from(payload: bytes, depth: int) -> tuple[Any, ...]:
    return tuple(_nested(payload, depth))


def _set_from(payload: bytes, depth: int) -> set[Any] | frozenset[Any]:
    name, *items = _nested(payload, depth)
    return frozenset(items) if name == "frozenset" else set(items)


def _complex_from(payload: bytes, depth: int) -> complex:
    return complex(*struct.unpack("<2d", payload))


def _integer_from(payload: bytes, depth: int) -> int:
    if len(payload) > _MAX_BITS // 4 + 3:  # with "-0x"
        raise FormatError(f"an integer of {len(payload)} hexadecimal digits")
    return int(payload, 16)


def _array_from(payload: bytes, depth: int) -> np.ndarray:
    descr, shape, raw = _nested(payload, depth)
    dtype = np.lib.format.descr_to_dtype(_descr(descr))
    if dtype.hasobject:
        raise FormatError("an array of Python objects")
    count = 1
    for n in shape:
        if not isinstance(n, int) or n < 0:
            raise FormatError(f"an array of shape {shape}")
        count *= n
    if count * dtype.itemsize != len(raw) or (not dtype.itemsize and count > _SMALL):
        raise FormatError(f"an array of {count} x {dtype} in {len(raw)} bytes")
    if not raw:
        return np.empty(shape, dtype)
    return np.frombuffer(raw, dtype).reshape(shape).copy()


def _descr(value: Any) -> Any:
    """The lists of :func:`_plain` as NumPy wants them: a list of fields, each a tuple, with a shape that is one too."""
    if not isinstance(value, list):
        return value
    return [(_title(name), _descr(code), *map(tuple, shape)) for name, code, *shape in value]


def _title(name: Any) -> Any:
    return tuple(name) if isinstance(name, list) else name


def _enum_from(payload: bytes, depth: int) -> Any:
    module, qualname, name, value = _nested(payload, depth)
    nameless = name is None and type(value) is int  # flags of which none is set
    if not all(isinstance(text, str) for text in (module, qualname)) or not (isinstance(name, str) or nameless):
        raise FormatError("an Enum member whose names are no text")
    found = _loaded(module, qualname)
    if isinstance(found, type) and issubclass(found, enum.Enum):
        members = type.__getattribute__(found, "_member_map_")
        if isinstance(name, str) and name in members:
            return members[name]
        # A combination of flags: made by the enum package itself, unless the class has ideas of its own.
        made = type(value) is int and getattr(found._missing_, "__func__", None) is _FLAG_MISSING
        if issubclass(found, enum.Flag) and made:
            return found(value)
    return f"Enum.{qualname.rpartition('.')[2]}.{value if name is None else name}"


_FLAG_MISSING = enum.Flag._missing_.__func__  # type: ignore[attr-defined]


def _loaded(module: str, qualname: str) -> Any:
    """What has this name in a module that is there already; None else.

    Looked up in dictionaries alone: an attribute of a module may be loaded when it is asked for, by ``__getattr__`` or
    because the module itself is a lazy one.
    """
    found: Any = sys.modules.get(module)
    if not isinstance(found, types.ModuleType):
        return None
    names = object.__getattribute__(found, "__dict__")
    for part in qualname.split("."):
        found = names.get(part)
        if not isinstance(found, type):
            return None
        names = type.__getattribute__(found, "__dict__")
    return found


def _time_from(payload: bytes, depth: int) -> Any:
    text = payload.decode("ascii")
    name, _, rest = text.partition(" ")
    if name == "timedelta":
        days, seconds, microseconds = map(int, rest.split())
        return dt.timedelta(days, seconds, microseconds)
    classes = {"datetime": dt.datetime, "date": dt.date, "time": dt.time}
    if name not in classes:
        raise FormatError(f"a time of kind {name!r}")
    return classes[name].fromisoformat(rest)  # type: ignore[attr-defined]


_DECODERS: dict[int, Callable[[bytes, int], Any]] = {
    _NDARRAY: _array_from,
    _SCALAR: _scalar_from,
    _TUPLE: _tuple_from,
    _TIME: _time_from,
    _ENUM: _enum_from,
    _COMPLEX: _complex_from,
    _INTEGER: _integer_from,
    _SET: _set_from,
}
