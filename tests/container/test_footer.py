"""The footer: there and back, damaged, hostile, and as documented."""

import struct
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_chunks import DATA_OFFSET, make_index, reader

from mrcz import FormatError
from mrcz.container import footer as ft
from mrcz.container.chunks import FOOTER_MARK, xxh64
from mrcz.container.footer import UnknownFooter, decode_footer, encode_footer
from mrcz.container.index import FrameIndex


def decode(footer, index=None, start=None, **keys):
    start = (index.end or DATA_OFFSET) if start is None else start
    return decode_footer(footer, start + len(footer), data_offset=DATA_OFFSET, **keys)


META = {"dose": 1.25, "n": {"gain": "ref.mrc"}, "blob": b"\0\1"}


@pytest.mark.parametrize("compress", ["zstd", "lz4", None])
@pytest.mark.parametrize("n", [0, 1, 300])
def test_footer_round_trip(n, compress):
    index = make_index(n)
    header = bytes(range(256)) * 4
    footer = encode_footer(
        index,
        header_bytes=header,
        extended_header_bytes=b"",
        metadata=META,
        source_header=header[::-1],
        writer="test 1",
        extra={"later": [1, 2]},
        compress=compress,
    )
    back = decode(footer, index)
    assert back.index == index
    assert (back.header_hash, back.extended_header_hash) == (xxh64(header), xxh64(b""))
    assert (back.header_copy, back.source_header) == (header, header[::-1])
    assert back.writer == "test 1" and back.extra == {"later": [1, 2]}
    assert back.metadata() == META
    assert back.trailer.start == (index.end or 1024) and back.trailer.end == back.trailer.start + len(footer)


@given(
    sizes=st.lists(st.integers(16, 2**31 - 1), max_size=20),
    gaps=st.lists(st.integers(0, 3), min_size=20, max_size=20),
    hashes=st.booleans(),
    stats=st.booleans(),
    compress=st.sampled_from(["zstd", "lz4", None]),
    away=st.integers(0, 1 << 40),
)
def test_any_index_round_trips(sizes, gaps, hashes, stats, compress, away):
    n = len(sizes)
    offsets = 1024 + np.cumsum([0, *sizes])[:n] + np.cumsum(gaps)[:n]
    index = FrameIndex(
        offsets,
        sizes,
        np.arange(n, dtype="u8") << np.uint64(57) if hashes else None,
        np.full((n, 4), [np.nan, -1, 0, 1e300]) if stats else None,
    )
    start = max(index.end, 1024) + away
    footer = encode_footer(index, compress=compress, start=start)
    back = decode(footer, start=start)
    assert back.index == index and back.metadata_span is None and back.metadata() is None


def test_footer_is_small():
    # A movie of 1000 frames of 3838 x 3710 electrons at 1 a pixel holds some 3.3 MB a frame.
    index = make_index(1000)
    assert len(encode_footer(index)) < 0.0001 * 1000 * 3.3e6
    assert len(encode_footer(index)) < ft.TAIL_SIZE


def test_open_costs_one_read_for_a_usual_footer_and_two_for_a_long_one():
    for n, metadata, requests in (
        (1000, META, 1),
        (5000, META, 2),
        (10, {"b": np.random.default_rng(1).bytes(10**6)}, 1),
    ):
        index = make_index(n)
        data = bytes(index.end) + encode_footer(index, metadata=metadata)
        calls = []
        footer = ft.load_footer(reader(data, calls), len(data), data_offset=1024)
        assert footer.index == index and len(calls) == requests
        assert footer.metadata(reader(data, calls)) == metadata
        assert len(calls) <= 2 + (n == 5000)


def test_long_metadata_are_not_needed_for_the_index():
    index = make_index(10)
    footer = encode_footer(index, metadata={"b": np.random.default_rng(1).bytes(10**6)})
    back = decode_footer(footer[-3000:], index.end + len(footer))
    assert back.index == index
    with pytest.raises(ValueError, match="pass read="):
        back.metadata()
    with pytest.raises(FormatError, match="damaged"):
        back.metadata(lambda offset, n: bytes(n))
    with pytest.raises(FormatError, match="damaged"):
        back.metadata(lambda offset, n: b"")


def test_no_footer():
    assert decode_footer(b"", 0) is None
    assert decode_footer(bytes(63), 63) is None
    assert decode_footer(bytes(1000), 5000) is None
    assert ft.load_footer(reader(bytes(2000)), 2000, data_offset=1024) is None
    assert ft.load_footer(reader(bytes(1024)), 1024, data_offset=1024) is None


def retrailer(footer, **changes):
    """The footer with fields of its trailer changed and the trailer's own checksum made right again."""
    names = ("start", "stored", "raw", "hash", "frames", "version", "flags", "size")
    values = dict(zip(names, struct.unpack("<QQQQQHHI", footer[-64:-16]), strict=True)) | changes
    raw = struct.pack("<QQQQQHHI", *values.values())
    return footer[:-64] + raw + struct.pack("<Q", xxh64(raw)) + footer[-8:]


def with_body(body, **changes):
    """A footer with the given body and right checksums."""
    raw = body if isinstance(body, bytes) else msgpack.packb(body)
    footer = FOOTER_MARK + raw + bytes(56) + ft.TRAILER_MAGIC
    frames = body.get("frames", 0) if isinstance(body, dict) else 0
    fields = dict(
        start=1024, stored=len(raw), raw=len(raw), hash=xxh64(raw), frames=frames, version=1, flags=0, size=64
    )
    return retrailer(footer, **(fields | changes))


@pytest.mark.parametrize("change", [{"version": 2}, {"flags": 9}, {"size": 80}])
def test_unknown_version_is_no_footer(change):
    index = make_index(3)
    footer = retrailer(encode_footer(index), **change)
    with pytest.raises(UnknownFooter, match="is not known to this version"):
        decode(footer, index)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "its footer, of version 2, is"),
        ({"flags": 3}, "its footer, of version 1 with flags 0x0003, is"),
        ({"version": 0, "flags": 3}, "its footer, of version 0, is"),
        ({"size": 63}, "its footer, of version 1 with flags 0x0000 and a trailer of 63 bytes, is"),
    ],
)
def test_what_is_not_known_of_a_footer_is_told(change, said):
    with pytest.raises(UnknownFooter, match=said):
        decode(retrailer(encode_footer(make_index(30)), **change), make_index(30))


def test_where_a_footer_without_frames_starts():
    for extended in (None, b"", b"x" * 80):
        footer = encode_footer(FrameIndex([], []), extended_header_bytes=extended)
        start = 1024 + len(extended or b"")
        back = decode_footer(footer, start + len(footer), data_offset=start)
        assert (back.trailer.start, len(back.index), back.extended_header_hash is None) == (start, 0, extended is None)
        with pytest.raises(FormatError, match=f"starts at byte {start}, within the header of {start + 1} bytes"):
            decode_footer(footer, start + len(footer), data_offset=start + 1)


def test_what_a_tail_must_hold():
    index = make_index(3)
    footer = encode_footer(index, metadata=META, compress=None)
    end = index.end + len(footer)
    trailer = ft.parse_trailer(footer[-64:], end)
    assert (trailer.position, trailer.end, trailer.n_frames) == (end - 64, end, 3)
    body = end - trailer.body_start
    assert decode_footer(footer[-body:], end).index == index
    with pytest.raises(ValueError, match=f"body starts at byte {trailer.body_start}, the tail at {end - body + 1}"):
        decode_footer(footer[-body + 1 :], end)
    assert ft.parse_trailer(footer[-63:], end) is None
    # Its start, too, if that came along.
    assert decode_footer(footer[1:], end).index == index
    with pytest.raises(FormatError, match=f"no mark at its start, byte {index.end}"):
        decode_footer(b"x" + footer[1:], end)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"header_copy": bytes(1023), "header": None}, "the copy of the header, 1023 bytes"),
        ({"header_copy": bytes(1024), "header": 1}, "the copy of the header, 1024 bytes, does not match"),
        ({"header_copy": "x" * 1024}, "header_copy is a str, expected bytes"),
        ({"header": True}, "header is a bool, expected an integer"),
        ({"extended": b"1"}, "extended is a bytes, expected an integer"),
        ({"frames": True}, "frames is a bool, expected an integer"),
        ({"frames": None}, "None frames in the body, 1 in the trailer"),
        ({"frames": 2}, "2 frames in the body, 1 in the trailer"),
        ({"sizes": None}, "no sizes of chunks"),
        ({"sizes": bytes(8)}, "sizes has 8 bytes, expected 4 for 1 frames"),
        ({"offsets": bytes(4)}, "offsets has 4 bytes, expected 8 for 1 frames"),
        ({"stats": bytes(8)}, "stats has 8 bytes, expected 32 for 1 frames"),
        ({"offsets": (1 << 62).to_bytes(8, "little")}, f"chunk at byte {1 << 62}"),
        ({"first": -1}, "first chunk at -1"),
        ({"first": 1 << 62}, f"first chunk at {1 << 62}"),
        ({"first": (1 << 62) - 1}, f"at {(1 << 62) - 1}, data lie in"),
        ({"later": [0] * 4097}, "body is not MessagePack"),
        ({"later": {str(k): 0 for k in range(4097)}}, "body is not MessagePack"),
    ],
    ids=str,
)
def test_what_a_body_may_not_say(entries, message):
    def footer_with(**changes):
        body = {"frames": 1, "first": 1024, "sizes": (16).to_bytes(4, "little"), **changes}
        footer = with_body(body, start=1040, frames=1)
        return decode_footer(footer, 1040 + len(footer), data_offset=1024)

    none = with_body({"frames": 0, "first": 0, "sizes": b""})  # nobody asks where no chunk begins
    assert len(decode_footer(none, 1024 + len(none), data_offset=1024).index) == 0
    assert footer_with(writer=5, later=[0] * 4096, header_copy=bytes(1024)).writer == ""
    with pytest.raises(FormatError, match=message):
        footer_with(**entries)


def test_parts_that_leave_room_between_them_are_refused():
    body = {"frames": 0, "first": 1024, "sizes": b"", "metadata": {"size": 1}}
    footer = with_body(body, start=1024)
    with pytest.raises(FormatError, match="its parts begin at byte 1023, the trailer says 1024"):
        decode_footer(footer, 1024 + len(footer), data_offset=1024)


def test_statistics_that_say_nothing_are_not_stored():
    index = make_index(3)
    for stats, kept in ((np.full((3, 4), np.nan), False), (np.array([[np.nan] * 4, [1, 2, 3, 4], [np.nan] * 4]), True)):
        some = FrameIndex(index.offsets, index.sizes, index.hashes, stats)
        back = decode(encode_footer(some), index)
        assert (back.index.stats is not None) == kept
        assert not kept or back.index == some
    none = FrameIndex([], [], stats=np.zeros((0, 4)))
    assert decode(encode_footer(none), none).index == none


def test_unknown_names_are_kept():
    index = make_index(3)
    assert decode(encode_footer(index, extra={"x": 1}), index).extra == {"x": 1}
    with pytest.raises(ValueError, match="name of the footer format"):
        encode_footer(index, extra={"sizes": b""})
    with pytest.raises(ValueError, match="compress"):
        encode_footer(index, compress="gzip")


@pytest.mark.parametrize("compress", ["zstd", "lz4", None])
def test_every_flipped_bit_is_noticed(compress):
    """No bit of a footer can change without an error, or the footer (not its content) being gone."""
    index = make_index(4)
    footer = encode_footer(index, metadata=META, compress=compress)
    for bit in range(8 * len(footer)):
        broken = bytearray(footer)
        broken[bit // 8] ^= 1 << bit % 8
        try:
            back = decode(bytes(broken), index)
        except FormatError:
            continue
        if back is None:
            assert bit >= 8 * (len(footer) - 8)  # the magic itself
            continue
        # What is left is the metadata section, which has its own checksum.
        assert back.index == index
        with pytest.raises(FormatError, match="damaged"):
            back.metadata()


@pytest.mark.parametrize("cut", [1, 8, 63, 64, 100])
def test_truncated_footer(cut):
    index = make_index(4)
    footer = encode_footer(index)
    assert decode_footer(footer[:-cut], index.end + len(footer) - cut) is None
    with pytest.raises(FormatError, match="do not fit before byte"):
        decode_footer(footer[cut + 50 :], len(footer) - cut - 50)


HUGE = 2**64 - 1


@pytest.mark.parametrize(
    "footer",
    [
        *(
            with_body({"frames": 0, "sizes": b"", "first": 1024}, **{name: value})
            for name in ("start", "stored", "raw", "frames")
            for value in (HUGE, 2**63, 2**31, 0, 5)
            if (name, value) != ("frames", 0)
        ),
        with_body({"frames": 0, "sizes": b"", "first": 1024}, flags=1),
        with_body({"frames": 0, "sizes": b"", "first": 1024}, flags=2),
        with_body(b""),
        with_body(b"\xc1"),
        with_body(b"\xdf\xff\xff\xff\xff"),
        with_body(b"\xdd\xff\xff\xff\xff" * 100),
        with_body(b"\x91" * 5000),
        with_body(b"\xc6\xff\xff\xff\xff"),
        with_body(b"\x93\1\2\3"),
        with_body({}),
        with_body({"frames": 1, "first": 1024}),
        with_body({"frames": 1, "first": 1024, "sizes": "1234"}),
        with_body({"frames": 1, "first": 1024, "sizes": b"123"}),
        with_body({"frames": 1, "first": HUGE, "sizes": b"\x10\0\0\0"}),
        with_body({"frames": 1, "first": None, "sizes": b"\x10\0\0\0"}),
        with_body({"frames": 1, "sizes": b"\x10\0\0\0", "offsets": b"\xff" * 8}),
        with_body({"frames": 1, "first": 0, "sizes": b"\x10\0\0\0"}),
        with_body({"frames": 1, "first": 1024, "sizes": b"\x10\0\0\0"}),  # beyond the footer's start
        with_body({"frames": 1, "first": 1024, "sizes": b"\x10\0\0\0", "xxh64": b"\0"}),
        with_body({"frames": 0, "first": 1024, "sizes": b"", "header": "x"}),
        with_body({"frames": 0, "first": 1024, "sizes": b"", "source_header": 5}),
        with_body({"frames": 0, "first": 1024, "sizes": b"", "metadata": 5}),
        with_body({"frames": 0, "first": 1024, "sizes": b"", "metadata": {"size": HUGE}}),
        with_body({"frames": 0, "first": 1024, "sizes": b"", "metadata": {"size": -1}}),
    ],
)
def test_hostile_footers_are_refused(footer):
    with pytest.raises(FormatError):
        decode_footer(footer, 1024 + len(footer), data_offset=1024)


def test_bombs_are_not_unpacked():
    import zstandard

    bomb = zstandard.compress(bytes(1 << 28), 19)
    with pytest.raises(FormatError, match="claim to unpack"):
        decode_footer(with_body(bomb, flags=1, raw=1 << 28), 1024 + len(bomb) + 72, data_offset=1024)
    # A frame that says less than it holds stops at what the trailer said.
    with pytest.raises(FormatError, match="expected 10"):
        decode_footer(with_body(bomb, flags=1, raw=10), 1024 + len(bomb) + 72, data_offset=1024)


@pytest.mark.parametrize("compress", ["zstd", "lz4", None])
def test_metadata_that_shrink_too_well_are_stored_plain(compress):
    index = make_index(2)
    meta = {"zeros": bytes(30 << 20)}
    footer = encode_footer(index, metadata=meta, compress=compress)
    assert decode(footer, index).metadata() == meta


@pytest.mark.parametrize("compress", ["zstd", "lz4"])
def test_what_does_not_shrink_is_stored_as_it_is(compress):
    index = make_index(2)
    for packed, plain in ((np.random.default_rng(1).bytes(5000), True), (bytes(5000), False), (bytes(30 << 20), True)):
        back = decode(encode_footer(index, metadata=packed, compress=compress), index)
        assert back.metadata_bytes() == packed
        assert (back.metadata_span[1] == len(packed)) == plain and back.metadata_span[1] <= len(packed)


def test_the_largest_section_a_reader_unpacks():
    """1 MiB and 100 times the stored bytes, docs/container.md §2: to the byte, for writer and reader."""
    import zstandard

    def stored(size):
        return zstandard.ZstdCompressor(level=3, write_checksum=False, write_content_size=True).compress(bytes(size))

    index = make_index(1)
    largest = 1 << 20
    while (more := (1 << 20) + 100 * len(stored(largest))) != largest:
        largest = more
    for size, plain in ((largest, False), (largest + 1, True)):
        back = decode(encode_footer(index, metadata=bytes(size)), index)
        assert back.metadata_span[1] == (size if plain else len(stored(size)))
        assert back.metadata_bytes() == bytes(size)
    section = stored(largest + 1)
    entry = {"size": len(section), "raw": largest + 1, "xxh64": xxh64(section), "codec": "zstd"}
    with pytest.raises(FormatError, match=f"claim to unpack to {largest + 1}"):
        with_section(section, entry).metadata_bytes()


def with_section(section, entry):
    """A footer of no frames with this section of metadata, and what its body says of it."""
    raw = msgpack.packb({"frames": 0, "sizes": b"", "first": 1024, "metadata": entry})
    footer = FOOTER_MARK + section + raw + bytes(56) + ft.TRAILER_MAGIC
    fields = dict(start=1024, stored=len(raw), raw=len(raw), hash=xxh64(raw), frames=0, version=1, flags=0, size=64)
    footer = retrailer(footer, **fields)
    return decode_footer(footer, 1024 + len(footer), data_offset=1024)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"raw": "x"}, "metadata: length 'x' is no length"),
        ({"raw": None}, "is no length"),
        ({"raw": True}, "is no length"),
        ({"raw": -1}, "length -1 is no length"),
        ({"raw": 7}, "metadata: 7 bytes claimed, 6 stored"),
        ({"codec": "zip"}, "metadata: compression 'zip' is unknown"),
        ({"codec": "zstd"}, "metadata: "),
        ({"codec": "lz4"}, "metadata: "),
        ({"xxh64": 1}, "do not match their checksum"),
        ({"xxh64": None}, "do not match their checksum"),
    ],
)
def test_metadata_that_are_not_what_the_body_says(changes, message):
    section = msgpack.packb({"a": b"b"})
    entry = {"size": len(section), "raw": len(section), "xxh64": xxh64(section), "codec": None}
    assert with_section(section, entry).metadata() == {"a": b"b"}
    with pytest.raises(FormatError, match=message):
        with_section(section, entry | changes).metadata()


def test_metadata_that_unpack_to_another_length():
    import lz4.block
    import zstandard

    for codec, section in (
        ("zstd", zstandard.compress(bytes(50))),
        ("lz4", lz4.block.compress(bytes(50), store_size=False)),
    ):
        entry = {"size": len(section), "raw": 50, "xxh64": xxh64(section), "codec": codec}
        assert with_section(section, entry).metadata_bytes() == bytes(50)
        for raw in (49, 51, 0):
            with pytest.raises(FormatError, match="metadata: "):
                with_section(section, entry | {"raw": raw}).metadata_bytes()


def test_metadata_that_are_no_map():
    section = msgpack.packb([1])
    entry = {"size": len(section), "raw": len(section), "xxh64": xxh64(section), "codec": None}
    with pytest.raises(FormatError, match="the metadata are a list, expected a map"):
        with_section(section, entry).metadata()


def test_a_footer_can_be_shown():
    index = make_index(2)
    back = decode(encode_footer(index, metadata={"notes": "x" * 10**6}, writer="test 1", compress=None), index)
    assert "test 1" in repr(back) and len(repr(back)) < 3000
    assert "metadata_span=(" in repr(back) and "_metadata=" not in repr(back)  # of the metadata, where they lie


def test_a_footer_moves_without_its_frames():
    index = make_index(3)
    footer = encode_footer(index, metadata=META)
    assert ft.move_footer(footer, index.end) is footer
    moved = ft.move_footer(footer, index.end + 5000)
    back = decode(moved, start=index.end + 5000)
    assert (back.index, back.metadata(), back.trailer.start) == (index, META, index.end + 5000)
    assert ft.move_footer(moved, index.end) == footer


def test_a_file_shorter_than_its_header_is_asked_for_nothing():
    calls = []
    for size in (0, 1000, 1024):
        assert ft.load_footer(reader(bytes(size), calls), size, data_offset=1024) is None
    assert all(n == 0 for _, n in calls)


def test_fewer_bytes_than_asked_for_are_told():
    index = make_index(5000)
    data = bytes(index.end) + encode_footer(index)

    def short(offset, n):
        return data[offset : offset + n - (n < len(data) - index.end)]

    with pytest.raises(FormatError, match=f"the last 65536 bytes of {len(data)} were asked for, 65535 came"):
        ft.load_footer(short, len(data), data_offset=1024)
    asked = []

    def second_short(offset, n):
        asked.append(n)
        return data[offset : offset + n - (len(asked) > 1)]

    with pytest.raises(FormatError, match=r"footer: \d+ bytes expected, \d+ came"):
        ft.load_footer(second_short, len(data), data_offset=1024)


@settings(max_examples=200)
@given(st.data())
def test_random_damage_gives_the_index_or_a_format_error(data):
    index = make_index(3)
    footer = bytearray(encode_footer(index, metadata=META))
    for _ in range(data.draw(st.integers(1, 4))):
        footer[data.draw(st.integers(0, len(footer) - 9))] = data.draw(st.integers(0, 255))
    try:
        back = decode(bytes(footer), index)
    except FormatError:
        return
    assert back.index == index


def test_find_footer_passes_over_ruins():
    index = make_index(3)
    good = encode_footer(index, metadata=META)
    late = encode_footer(index[:2], start=index.end + len(good) + 900)
    broken = bytearray(late)
    broken[20] ^= 1
    data = bytes(index.end) + good + bytes(900) + bytes(broken) + ft.TRAILER_MAGIC * 2 + b"half a chunk"
    for block in (1 << 20, 100, 8, 9):
        footer = ft.find_footer(reader(data), index.end, len(data), data_offset=1024, block=block)
        assert footer.index == index and footer.trailer.start == index.end and footer.metadata() == META
    assert ft.find_footer(reader(bytes(3000)), 1024, 3000) is None


def test_find_footer_takes_the_last_and_looks_no_further_back():
    index = make_index(3)
    first = encode_footer(index[:2], start=index.end)
    second = encode_footer(index, start=index.end + len(first))
    data = bytes(index.end) + first + second + b"rest"
    end = index.end + len(first) + len(second)
    for block in (8, 64, 1 << 20):
        found = ft.find_footer(reader(data), 1024, len(data), data_offset=1024, block=block)
        assert found.index == index
        assert ft.find_footer(reader(data), 1024, end, data_offset=1024, block=block).index == index
        assert ft.find_footer(reader(data), 1024, end - 1, data_offset=1024, block=block).index == index[:2]
        assert ft.find_footer(reader(data), end - 8, len(data), data_offset=1024, block=block).index == index
        assert ft.find_footer(reader(data), end - 7, len(data), data_offset=1024, block=block) is None
    later = retrailer(second, version=2)
    with pytest.raises(UnknownFooter):
        ft.find_footer(reader(bytes(index.end) + first + later), 1024, end, data_offset=1024)


def test_documented_example(tmp_path):
    """The worked example of docs/container.md, byte for byte: the format may not drift."""
    index = FrameIndex([1024, 1064], [40, 50], [1, 2])
    footer = encode_footer(index, extended_header_bytes=b"", writer="x 1", compress=None)
    text = (Path(__file__).parents[2] / "docs" / "container.md").read_text()
    block = text.split("```hexdump\n")[1].split("```")[0]
    documented = b"".join(bytes.fromhex(line[7:54]) for line in block.splitlines())
    assert footer == documented


def test_every_key_of_the_body_is_documented():
    text = (Path(__file__).parents[2] / "docs" / "container.md").read_text(encoding="utf-8")
    for name in ft._KNOWN | {"source_name", "recovered_frames"}:
        assert f"\n| `{name}` | " in text, name
