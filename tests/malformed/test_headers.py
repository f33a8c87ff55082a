"""A damaged header gives an error that names the field, or the pixels that are there; never a crash."""

import warnings

import numpy as np
import pytest
from malformed.headers import DECISIVE, EXTENDED, SHAPE, contradictions, corrupt_fields, sound, truncations

from mrcz import FormatError, FormatWarning, HeaderError, MrczError
from mrcz.container.header.header import Header


def permissively(raw: bytes) -> Header | None:
    """What a permissive reader makes of a file; its defects are warnings and oddities, each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            header = Header.parse(raw, file_size=len(raw), permissive=True)
        except MrczError:
            return None
    assert all(issubclass(w.category, FormatWarning) for w in caught)
    assert len(caught) <= len(header.oddities)
    return header


def check_frames_there(header: Header, size: int) -> None:
    unit = 16 if header.compressed else header.frame_nbytes
    assert 1024 <= header.data_offset <= size
    assert 0 <= header.nz * unit <= size - header.data_offset


def cases(generator):
    return [pytest.param(raw, field, id=name) for name, raw, field in generator]


@pytest.mark.parametrize(("raw", "field"), cases(corrupt_fields("<")) + cases(corrupt_fields(">")))
def test_each_field_corrupted(raw, field):
    whole = Header.parse(sound(), file_size=len(raw))
    try:
        header = Header.parse(raw, file_size=len(raw))
    except HeaderError as error:
        assert error.field in DECISIVE
        assert field in (error.field, "imod_stamp", "imod_flags")
        assert str(error.found) in str(error)
        assert error.expected is not None
    else:
        # The bytes between the headers are no frames, so nsymbt=0 and a smaller nz can only be noticed as more bytes
        # than needed; every other field leaves the pixels where they are.
        assert header.data_offset == (1024 if field == "nsymbt" else 1024 + EXTENDED)
        assert header.pixel_format.frame_nbytes(header.ny, header.nx) == whole.frame_nbytes or field == "mode"
        assert header.shape == SHAPE
        check_frames_there(header, len(raw))
    header = permissively(raw)
    if header is not None:
        check_frames_there(header, len(raw))


@pytest.mark.parametrize("codec", [None, "zstd"])
def test_truncated_at_every_boundary(codec):
    for name, raw, field in truncations(codec):
        with pytest.raises(HeaderError) as caught:
            Header.parse(raw, file_size=len(raw), path="cut.mrc")
        assert caught.value.field == field, name
        assert str(caught.value).startswith("cut.mrc: ")
        header = permissively(raw)
        assert (header is None) == (len(raw) < 1024), name
        if header is not None:
            assert header.oddities
            check_frames_there(header, len(raw))


@pytest.mark.parametrize(("raw", "field"), cases(contradictions()))
def test_contradictions(raw, field):
    with pytest.raises(HeaderError) as caught:
        Header.parse(raw, file_size=len(raw))
    assert caught.value.field == field
    header = permissively(raw)
    if header is not None:
        check_frames_there(header, len(raw))


def test_permissive_gives_the_frames_there():
    good = sound()
    frame = SHAPE[1] * SHAPE[2] * 2
    for size in (len(good) - 1, len(good) - frame, len(good) - frame - 1, 1024 + EXTENDED):
        header = permissively(good[:size])
        assert header.nz == (size - 1024 - EXTENDED) // frame
        assert header.shape == (header.nz, *SHAPE[1:])


def test_nsymbt_that_is_not_there():
    """A file whose frames begin at 1024 although NSYMBT is set: its size says so, and permissive believes it."""
    good = sound()
    raw = good[:1024] + good[1024 + EXTENDED :]
    with pytest.raises(HeaderError, match="nsymbt is 160, expected 0"):
        Header.parse(raw, file_size=len(raw))
    header = permissively(raw)
    assert (header.data_offset, header.shape) == (1024, SHAPE)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("codec", [None, "zstd"])
def test_random_bytes(order, codec, rng):
    """A quarter of 10 000 single-byte changes: an error of ours, or a header that fits the file."""
    good = sound(order, "float32", codec)
    where, what = rng.integers(0, 1024, 2500), rng.integers(0, 256, 2500)
    for at, byte in zip(where, what, strict=True):
        raw = bytearray(good)
        raw[at] = byte
        try:
            header = Header.parse(bytes(raw), file_size=len(raw))
        except MrczError:
            continue
        check_frames_there(header, len(raw))
        for name in ("labels", "pixel_size", "kind", "mz", "slices", "stats", "exttyp", "voltage", "origin", "axes"):
            getattr(header, name)
        assert header.byteorder == order or (raw[:64] != good[:64] and at < 76)


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\x1f\x8b\x08", "gzip"),
        (b"BZh9", "bzip2"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"II*\x00", "TIFF"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x00\x00\x00\x04\x00\x00\x00\x00", "DM4"),
        (b"data_\n\nloop_\n_rlnMicrographName #1\n" * 40, "text file, which begins 'data_'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
def test_other_formats_are_named(start, name, rng):
    raw = (start + rng.bytes(2000))[: max(len(start), 1024)]
    with pytest.raises(FormatError, match=name):
        Header.parse(raw, file_size=len(raw))
    with pytest.raises(FormatError, match=name):
        Header.parse(raw, file_size=len(raw), permissive=True)


def test_noise_is_not_mrc(rng):
    for _ in range(200):
        raw = rng.bytes(1024)
        with pytest.raises(FormatError):
            Header.parse(raw, file_size=1 << 20)


def test_nothing_is_allocated_by_claim():
    """A header that claims exabytes is refused in microseconds and bytes."""
    import tracemalloc

    raw = bytearray(sound())
    raw[8:12] = np.int32(2**31 - 1).tobytes()
    tracemalloc.start()
    assert permissively(bytes(raw)).nz == SHAPE[0]
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
