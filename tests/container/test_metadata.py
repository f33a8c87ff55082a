"""Metadata as JSON and MessagePack, there and back, damaged and hostile."""

import datetime as dt
import enum
import json
import pathlib
import struct
import sys
import types
from collections import OrderedDict, deque, namedtuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mrcz import FormatError
from mrcz.container.extended import decode_extended
from mrcz.container.metadata import encode_json, json_part, pack, unpack

# ---- JSON --------------------------------------------------------------------------------------------------------


class Axis(enum.Enum):
    X = 1
    Y = "why"


class Level(enum.IntEnum):
    LOW = 1


class Flags(enum.Flag):
    A = 1
    B = 2


class Holder:
    class Kind(enum.Enum):
        A = (1, 2)


class Old:
    def __init__(self, gives=None):
        self.gives = {"old": 1} if gives is None else gives

    def serialize(self):
        return self.gives


def test_json_as_the_old_package_wrote_it():
    data = {
        "axis": Axis.X,
        "array": np.arange(3),
        "scalar": np.float32(1.5),
        "flag": np.bool_(True),
        "object": Old(),
        "nested": {"list": [1, None, "µ"]},
        "when": dt.datetime(2026, 1, 2, 3, 4, 5),
        "subclass": OrderedDict(a=1),
    }
    raw = encode_json(data)
    assert len(raw) % 64 == 0
    assert json.loads(raw) == {
        "axis": "Enum.Axis.X",
        "array": [0, 1, 2],
        "scalar": 1.5,
        "flag": True,
        "object": {"old": 1},
        "nested": {"list": [1, None, "µ"]},
        "when": "2026-01-02T03:04:05",
        "subclass": {"a": 1},
    }
    assert decode_extended("json", raw) == json.loads(raw)
    assert len(encode_json({}, align=1)) == 2
    with pytest.raises(TypeError, match="metadata of type object"):
        encode_json({"x": object()})


def test_damaged_json():
    for raw in (b"{", b'{"a": 1}x', b"\xff\xfe", b"[" * 100_000):
        with pytest.raises(FormatError, match="json extended header"):
            decode_extended("json", raw)
    assert decode_extended("json", b"") == decode_extended("json", bytes(64)) == {}
    assert decode_extended("json", b'{"a": 1}' + bytes(8)) == {"a": 1}


def test_the_part_that_json_has_a_form_for():
    """Entries of another kind are left out one by one, also of maps in maps; the rest stays what it is."""
    data = {
        "dose": 1.5,
        "blob": b"x",
        "array": np.arange(2),
        ("a", "b"): 1,
        "mixed": [1, b"x"],
        "inner": {"blob": b"x", "gain": "ref.mrc", b"k": 1, "deeper": OrderedDict(a=1, b=object())},
        None: 1,
        True: 2,
        7: 3,
        2.5: 4,
    }
    part = json_part(data)
    assert part.pop("array") is data["array"]
    assert part == {"dose": 1.5, "inner": {"gain": "ref.mrc", "deeper": {"a": 1}}, None: 1, True: 2, 7: 3, 2.5: 4}
    assert json.loads(encode_json(json_part(data)))["array"] == [0, 1]


def test_json_is_padded_with_blanks():
    for align in (1, 16, 64):
        raw = encode_json({"a": 1}, align=align)
        assert len(raw) % align == 0 and len(raw) - 8 < align and raw.rstrip(b" ") == b'{"a": 1}'
    assert encode_json({"a": 1}, align=0) == b'{"a": 1}'


# ---- MessagePack -------------------------------------------------------------------------------------------------

Point = namedtuple("Point", "x y")

VALUES = {
    "none": None,
    "bool": True,
    "int": -5,
    "big": 10**40,
    "negative": -(10**40),
    "uint64": 2**64 - 1,
    "float": 0.1,
    "infinity": float("inf"),
    "complex": 1 - 2j,
    "str": "µm, Å and \udcff",
    "bytes": b"\0\xff",
    "list": [1, [2, [3, []]]],
    "tuple": (1, (2, ("x", ()))),
    "dict": {1: 2, "a": {b"b": {}}, (1, 2): 3, None: 4},
    "set": {1, 2},
    "frozenset": frozenset(["a"]),
    "float64": np.float64(0.1),
    "float32": np.float32(0.1),
    "float16": np.float16(0.5),
    "int8": np.int8(-3),
    "uint64 scalar": np.uint64(2**64 - 1),
    "bool scalar": np.bool_(False),
    "complex64": np.complex64(1j),
    "str scalar": np.str_("abc"),
    "no text": np.str_(""),
    "bytes scalar": np.bytes_(b"abc"),
    "no bytes": np.bytes_(b""),
    "datetime64": np.datetime64("2026-01-02T03:04:05.678", "ms"),
    "timedelta64": np.timedelta64(5, "ns"),
    "datetime": dt.datetime(2026, 1, 2, 3, 4, 5, 678),
    "aware": dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=-3))),
    "date": dt.date(2026, 1, 2),
    "time": dt.time(1, 2, 3, 4),
    "timedelta": dt.timedelta(-1, 2, 3),
    "enum": Axis.Y,
    "enum of a class in a class": Holder.Kind.A,
    "int enum": Level.LOW,
    "flags": Flags.A | Flags.B,
    "no flags": Flags(0),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_round_trip(name):
    value = VALUES[name]
    packed = unpack(pack({"alone": value, "list": [value], "tuple": (value,), "dict": {"x": {"y": value}}}))
    for back in (unpack(pack(value)), packed["alone"], packed["list"][0], packed["tuple"][0], packed["dict"]["x"]["y"]):
        assert type(back) is type(value)
        assert back == value
        if isinstance(value, np.generic):
            assert back.dtype == value.dtype


ARRAYS = [
    np.arange(6, dtype=">i4").reshape(2, 3),
    np.zeros(3, [("x", "<f4"), ("y", ">i2", (2,)), ("z", [("q", "u1")])]),
    np.zeros(2, np.dtype({"names": ["a", "b"], "formats": ["u1", "f8"], "offsets": [0, 8], "itemsize": 24})),
    np.zeros(2, [(("a title", "x"), "<f4"), ("y", "u1", (2, 3))]),
    np.empty((0, 5)),
    np.array(5),
    np.arange(10)[::2],
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.array(["a", "bcd"]),
    np.array([b"a", b"bcd"]),
    np.array(["2026-01-02"], "M8[D]"),
    np.array([True, False]),
    np.array([1 + 2j], np.complex64),
    np.array([np.nan, np.inf]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype.str}{a.shape}")
def test_arrays_round_trip(array):
    back = unpack(pack({"deep": [array]}))["deep"][0]
    assert (back.dtype.names, back.shape) == (array.dtype.names, array.shape)
    assert back.dtype == array.dtype or array.dtype.names == ("a", "b")
    for name in array.dtype.names or [...]:
        assert np.array_equal(back[name], array[name], equal_nan=array.dtype.kind == "f")
    assert back.flags.writeable
    assert back.flags.c_contiguous


@given(hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0, max_side=4)))
def test_any_array_round_trips(array):
    back = unpack(pack(array))
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(PLAIN)
def test_any_plain_value_round_trips(value):
    assert unpack(pack(value)) == value


def test_near_relatives_become_what_they_derive_from():
    class Mine(dict):
        pass

    class Number(float):
        pass

    assert unpack(pack(Mine(a=1))) == {"a": 1}
    assert unpack(pack([Number(1.5), deque([1, 2]), range(3), pathlib.PurePosixPath("a/b"), bytearray(b"x")])) == [
        1.5,
        [1, 2],
        [0, 1, 2],
        "a/b",
        b"x",
    ]
    assert unpack(pack(Point(1, 2))) == (1, 2)
    assert unpack(pack({"x": Old()})) == {"x": {"old": 1}}
    assert unpack(pack(np.array([1, "a"], object))) == [1, "a"]
    assert np.array_equal(unpack(pack(memoryview(b"abc"))), b"abc")


@pytest.mark.parametrize(
    "value",
    [7, 2**64 - 1, -(2**63), 10**30, 1.5, "text", b"bytes", [1, 2], (1, 2), {1, 2}, frozenset({1}), {"a": 1}, 1j],
    ids=lambda value: type(value).__name__,
)
def test_subclasses_become_the_type_they_derive_from(value):
    kind = type(value)
    back = unpack(pack({"x": [type("Mine", (kind,), {})(value)]}))["x"][0]
    assert (back, type(back)) == (value, kind)


@pytest.mark.parametrize(
    "value", [(1, 2), 5, 10**40, np.float32(1.5), Axis.X, [(1,)], {"x": {1}}, Old((1, 2)), b"x", True]
)
def test_what_an_object_gives_may_be_anything_that_is_stored(value):
    """What `serialize()` returns, and the one value of an array of objects without axes."""
    expected = value.gives if isinstance(value, Old) else value
    for holder in (Old(value), np.array(value, object) if not isinstance(value, (tuple, list)) else Old(value)):
        back = unpack(pack({"x": [holder]}))["x"][0]
        assert (back, type(back)) == (expected, type(expected))
    assert np.array_equal(unpack(pack(Old(np.arange(3)))), np.arange(3))
    for plain in (bytearray(b"abc"), memoryview(b"abc")):
        assert unpack(pack(Old(plain))) == b"abc"
    with pytest.raises(TypeError, match="metadata of type object cannot be stored"):
        pack(Old(object()))


def test_what_gives_itself_has_no_end():
    endless = Old()
    endless.gives = endless
    with pytest.raises(ValueError, match="metadata cannot be stored"):
        pack({"x": endless})


def test_other_languages_read_the_plain_part():
    import msgpack

    value = {"a": [1, 2.5, "x", b"y", None, True], "b": {"c": -1}}
    assert msgpack.unpackb(pack(value)) == value


def test_enum_of_a_class_that_is_not_here(monkeypatch):
    raw = pack({"e": Axis.X, "f": Flags.A, "none": Flags(0)})
    monkeypatch.delitem(sys.modules, __name__)
    assert unpack(raw) == {"e": "Enum.Axis.X", "f": "Enum.Flags.A", "none": "Enum.Flags.0"}


def test_what_cannot_be_stored():
    with pytest.raises(TypeError, match="metadata of type object"):
        pack({"x": [object()]})
    with pytest.raises(TypeError, match="metadata of type function"):
        pack(lambda: 0)
    loop: list = []
    loop.append(loop)
    with pytest.raises(ValueError, match="recursion limit"):
        pack(loop)
    deep: tuple = ()
    for _ in range(100):
        deep = (deep,)
    with pytest.raises(ValueError, match="64 levels"):
        pack(deep)


def test_levels_that_may_lie_in_each_other():
    """64 of ours, for what is written and what is read."""

    def nested(levels):
        value: tuple = ()
        for _ in range(levels):
            value = (value,)
        return value

    # The empty tuple is the last, and the metadata around them all are a level, too.
    deepest = pack(nested(62))
    assert unpack(deepest) == nested(62)
    with pytest.raises(ValueError, match="deeper than 64 levels"):
        pack(nested(63))
    once = ext(3, b"\x91" + deepest)
    assert unpack(once) == nested(63)
    with pytest.raises(FormatError, match="deeper than 64 levels"):
        unpack(ext(3, b"\x91" + once))


def test_failed_pack_leaves_nothing_behind():
    with pytest.raises(TypeError, match="metadata of type object cannot be stored"):
        pack({"x": [(1, object())]})
    assert unpack(pack({"x": [(1, 2)]})) == {"x": [(1, 2)]}


@given(st.binary(max_size=300))
@settings(max_examples=500)
def test_hostile_bytes(data):
    """Errors of ours, whatever the bytes."""
    try:
        unpack(data)
    except FormatError:
        pass


@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
@settings(max_examples=500)
def test_flipped_bytes(at, byte):
    raw = bytearray(pack({**VALUES, "arrays": ARRAYS}))
    raw[int(at * len(raw))] = byte
    try:
        unpack(bytes(raw))
    except FormatError:
        pass


def test_truncated():
    raw = pack({**VALUES, "arrays": ARRAYS})
    for cut in range(len(raw)):
        with pytest.raises(FormatError):
            unpack(raw[:cut])
    with pytest.raises(FormatError, match="1 bytes after"):
        unpack(raw + b"\0")
    with pytest.raises(FormatError, match="limit of 10"):
        unpack(raw, limit=10)


def ext(code: int, payload: bytes) -> bytes:
    return struct.pack(">BIb", 0xC9, len(payload), code) + payload


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff",  # a list of 4 billion items
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdd\x00\x40\x00\x00" * 1000,  # lists of 4 million in each other
        b"\x91" * 100_000,
        b"\x81" * 100_000,
        ext(1, pack(["|O", [1], b"12345678"])),  # pickled pointers
        ext(1, pack([[["a", "|O"]], [1], b"12345678"])),
        ext(1, pack(["<f8", [2**62, 4], b""])),
        ext(1, pack(["<f8", [-1], b"12345678"])),
        ext(1, pack(["<f8", [2**62], b"12345678"])),
        ext(1, pack(["S99999999999", [1], b""])),
        ext(1, pack(["__import__('os')", [1], b""])),
        ext(1, pack({"a": 1})),
        ext(2, b"|O\0" + b"12345678"),
        ext(2, b"<f8\0123"),
        ext(2, b""),
        ext(3, b"\x01"),
        ext(4, b"datetime yesterday"),
        ext(4, b"datetime"),
        ext(4, b"strptime 1"),
        ext(5, pack(["os", "system", "x", None])[:-1]),
        ext(6, b"123"),
        ext(7, b"one"),
        ext(8, pack([])),
        ext(8, pack(["set", []])),  # no hash
        b"\x81\x90\x01",
    ],
    ids=lambda data: data[:12].hex(),
)
def test_crafted_bytes(data):
    with pytest.raises(FormatError):
        unpack(data)


@pytest.mark.parametrize("shape", [[-1], [-1, -1], [2.0], ["1"], [[1]], [None]])
def test_shapes_that_are_none_are_named(shape):
    with pytest.raises(FormatError, match="an array of shape"):
        unpack(ext(1, pack(["|u1", shape, b"1"])))


def test_names_are_looked_up_and_not_run():
    assert unpack(ext(5, pack(["os", "system", "echo", "x"]))) == "Enum.system.echo"
    assert unpack(ext(5, pack(["no.such.module", "Enum", "X", None]))) == "Enum.Enum.X"


def test_memory_stays_in_proportion():
    import tracemalloc

    claims = b"\xdd\x00\x10\x00\x00" * 200_000
    nested = b""
    for _ in range(63):
        nested = ext(3, b"\xdd\x00\x00\x00\x01" + nested)
    tracemalloc.start()
    for data in (claims, nested, b"\xdd\x7f\xff\xff\xff" + bytes(1000)):
        with pytest.raises(FormatError):
            unpack(data)
    assert tracemalloc.get_traced_memory()[1] < 4 * len(claims)
    tracemalloc.stop()


def test_unknown_extension_types_survive():
    import msgpack

    raw = msgpack.packb({"x": msgpack.ExtType(99, b"later")})
    assert pack(unpack(raw)) == raw


def test_25_megabytes():
    """Sizes only: figures are the benchmark's."""
    data = {
        "frames": [{"defocus": 1.5 * i, "name": f"frame {i}", "shift": [0.1, 0.2]} for i in range(50_000)],
        "positions": np.zeros((500_000, 2)),
        "raw": bytes(10_000_000),
        "notes": "x" * 3_000_000,
    }
    raw = pack(data)
    assert len(raw) > 20_000_000
    back = unpack(raw)
    assert back["frames"] == data["frames"]
    assert np.array_equal(back["positions"], data["positions"])


def test_an_enum_imports_and_runs_nothing(tmp_path, monkeypatch):
    """Modules that load their parts when asked for them are not asked, by any of the ways Python has for it."""
    import importlib.util
    import sys
    import types

    asked = []
    eager = types.ModuleType("made_up_eager")
    eager.__getattr__ = lambda name: asked.append(name)
    monkeypatch.setitem(sys.modules, "made_up_eager", eager)
    (tmp_path / "made_up_lazy.py").write_text("import enum\nclass E(enum.Enum):\n    A = 1\nran = print('ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    spec = importlib.util.find_spec("made_up_lazy")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    lazy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "made_up_lazy", lazy)
    spec.loader.exec_module(lazy)

    class Odd(enum.Flag):
        A = 1

        @classmethod
        def _missing_(cls, value):
            asked.append(value)
            return cls.A

    module = types.ModuleType("made_up_here")
    module.Odd = Odd
    monkeypatch.setitem(sys.modules, "made_up_here", module)
    before = set(sys.modules)
    cases = {
        ("made_up_eager", "E", "A", 1): "Enum.E.A",
        ("made_up_lazy", "E", "A", 1): "Enum.E.A",
        ("made_up_here", "Odd", "A", 1): Odd.A,
        ("made_up_here", "Odd", "B", 7): "Enum.Odd.B",
        ("mrcz", "ioMRC", "A", 1): "Enum.ioMRC.A",
        ("mrcz", "ioMRC.E", "A", 1): "Enum.E.A",
        ("made_up_here", "Odd.__class__", "A", 1): "Enum.__class__.A",
        ("email.mime.made", "E", "A", 1): "Enum.E.A",
    }
    for names, expected in cases.items():
        assert unpack(ext(5, pack(list(names)))) == expected, names
    assert asked == [] and set(sys.modules) == before
    assert type(lazy).__name__ == "_LazyModule"  # still not loaded
    for names in ([1, "E", "A", 1], ["m", None, "A", 1], ["m", "E", [], 1], ["m", "E"], ["m"] * 9):
        with pytest.raises(FormatError):
            unpack(ext(5, pack(names)))


def test_integers_have_an_end():
    """What Python refuses to show is not taken, either way."""
    import json

    for value in (2**13_999, -(2**13_999), 2**64):
        assert unpack(pack({"n": value})) == {"n": value}
        json.dumps(unpack(pack({"n": value})))
    with pytest.raises(ValueError, match="bits"):
        pack({"n": 2**14_000})
    with pytest.raises(FormatError, match="digits"):
        unpack(ext(7, b"0x" + b"f" * 4000))


def test_no_array_without_bytes_claims_anything():
    with pytest.raises(FormatError):
        unpack(ext(1, pack(["|V0", [2**40], b""])))
    assert unpack(pack({"a": np.zeros((0, 2**40), "u1")}))["a"].shape == (0, 2**40)


def test_bounds_are_those_that_are_said():
    raw = pack({"n": 1})
    assert unpack(raw, limit=len(raw)) == {"n": 1}
    with pytest.raises(FormatError, match=f"{len(raw)} bytes of metadata, more than the limit of {len(raw) - 1}"):
        unpack(raw, limit=len(raw) - 1)
    longest = -(2**14_000 - 1)
    assert unpack(ext(7, hex(longest).encode())) == longest and unpack(pack(longest)) == longest
    with pytest.raises(FormatError, match="an integer of 3504 hexadecimal digits"):
        unpack(ext(7, b"-0x" + b"f" * 3501))
    with pytest.raises(ValueError, match="an integer of 14001 bits in the metadata: at most 14000"):
        pack(-(2**14_000))
    assert unpack(ext(1, pack(["|V0", [256], b""]))).shape == (256,)
    with pytest.raises(FormatError, match="257 x"):
        unpack(ext(1, pack(["|V0", [257], b""])))


def test_what_offers_an_array_becomes_one():
    values = np.arange(3, dtype=">i2")

    class Interface:
        __array_interface__ = values.__array_interface__

    class Array:
        def __array__(self, dtype=None, copy=None):
            return values

        tolist = values.tolist

    for offer in (Interface(), Array()):
        back = unpack(pack({"x": offer}))["x"]
        assert np.array_equal(back, values) and back.dtype == values.dtype
    record = np.array([(1, 2.5)], [("n", "i4"), ("x", "f8")])[0]
    back = unpack(pack([record]))[0]
    assert (back.shape, back.dtype, back.tobytes()) == ((), record.dtype, record.tobytes())
    objects = np.array([(1, "a")], [("n", "i4"), ("x", "O")])
    assert unpack(pack(objects)) == [(1, "a")] and unpack(pack(objects[0])) == (1, "a")


def test_json_of_what_offers_an_array():
    class Interface:
        __array_interface__ = np.arange(2).__array_interface__

        def tolist(self):
            return [0, 1]

    data = {"interface": Interface(), "time": dt.time(1, 2), "date": dt.date(2026, 1, 2), "point": Point(1, 2)}
    assert json.loads(encode_json(data)) == {
        "interface": [0, 1],
        "time": "01:02:00",
        "date": "2026-01-02",
        "point": [1, 2],
    }
    assert json.loads(encode_json({"map": types.MappingProxyType({"a": 1})})) == {"map": {"a": 1}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ext(1, pack(["|O", [1], b"12345678"])), "an array of Python objects"),
        (ext(1, pack(["<f8", [2], b"12345678"])), "an array of 2 x float64 in 8 bytes"),
        (ext(2, b"|O\0" + b"12345678"), "a Python object"),
        (ext(2, b"<f8\0" + b"123"), "a scalar of float64 in 3 bytes"),
        (ext(3, pack({"a": 1})), "a dict where a list belongs"),
        (ext(4, b"century 21"), "a time of kind 'century'"),
        (ext(5, pack([1, "E", "A", 1])), "an Enum member whose names are no text"),
        (ext(5, pack(["m", "E", None, "x"])), "an Enum member whose names are no text"),
    ],
)
def test_damage_is_told_by_its_name(data, message):
    with pytest.raises(FormatError, match=message):
        unpack(data)
