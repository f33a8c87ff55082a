"""`mrcz.open`, `read` and `write`: the same words, order and defaults wherever a file is opened."""

import inspect
import types
import typing

import numpy as np
import pytest

import mrcz
from mrcz.file import calls
from mrcz.file.options import WriteOptions


@pytest.fixture
def movie():
    return np.random.default_rng(3).poisson(1.0, (6, 12, 16)).astype(np.uint8)


@pytest.fixture
def path(tmp_path, movie):
    mrcz.write(tmp_path / "a.mrcz", movie)
    return tmp_path / "a.mrcz"


def keywords(function):
    """Keyword-only parameters with their annotations and defaults, in their order."""
    parameters = inspect.signature(inspect.unwrap(function)).parameters.values()
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters), function
    return [(p.name, p.annotation, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY]


def overloads():
    reading, writing, either = typing.get_overloads(inspect.unwrap(calls.open))
    return reading, writing, either


def test_writing_takes_the_same_words_everywhere():
    words = keywords(mrcz.Writer.__init__)
    assert len(words) == 30
    assert keywords(mrcz.write) == words
    assert keywords(mrcz.Writer.append_to) == words
    assert keywords(overloads()[1]) == words
    fields = WriteOptions.__dataclass_fields__.values()
    assert [(field.name, field.default) for field in fields] == [(name, default) for name, _, default in words]


def test_reading_takes_the_same_words_everywhere():
    words = keywords(mrcz.Reader.__init__)
    assert keywords(overloads()[0]) == words
    assert keywords(mrcz.read)[-len(words) :] == words
    fields = mrcz.ReadOptions.__dataclass_fields__.values()
    assert [(field.name, field.default) for field in fields] == [(name, default) for name, _, default in words[:9]]
    of_a_reader = [name for name, *_ in keywords(mrcz.Reader.read)]
    assert [name for name, *_ in keywords(mrcz.read)][1:4] == of_a_reader[:3] == ["out", "dtype", "gain"]


def test_what_every_mode_takes_can_be_said_with_any():
    both = {name for name, *_ in keywords(overloads()[0])} & {name for name, *_ in keywords(overloads()[1])}
    assert {name for name, *_ in keywords(overloads()[2])} == both == {"n_threads"}


def test_every_keyword_arrives(tmp_path, movie):
    """Thirty keywords are handed on by their place: each says something of its own here."""
    first = tmp_path / "first.mrcz"
    mrcz.write(
        first,
        movie.astype("f4"),
        codec="lz4",
        level=2,
        filter="shuffle",
        blocksize=4096,
        checksum=False,
        backend="blosc",
        dtype="f4",
        mrc_mode=2,
        round_to=0.25,
        pixel_size=1.5,
        kind="volume",
        metadata={"a": 1},
        metadata_codec="lz4",
        extended_header=("TEST", b"x" * 32),
        labels=("made by a test",),
        byteorder=">",
        voltage=300.0,
        c3=2.7,
        counts_per_electron=3.5,
        source_name="was.mrc",
        n_threads=2,
        sync=False,
    )
    with mrcz.open(first) as reader:
        header = reader.header
        assert (header.voltage, header.c3, header.gain) == pytest.approx((300, 2.7, 3.5))
        assert reader.codec == "lz4" and header.byteorder == ">" and header.mode == 2 and reader.kind == "volume"
        assert reader.metadata == {"a": 1, "round_to": 0.25} and reader.pixel_size == (1.5, 1.5, 1.5)
        assert reader.extended_header.type.strip() == "TEST" and "made by a test" in header.labels
        assert reader.footer.extra["source_name"] == "was.mrc"
    second = tmp_path / "second.mrcz"
    with mrcz.open(first) as reader:
        mrcz.write(second, movie[:, None], header=reader.header, mz=1, source_header=reader.header.tobytes(), pack=True)
    with mrcz.open(second) as reader:
        assert reader.header.gain == pytest.approx(3.5) and reader.kind == "volume stack" and reader.header.mz == 1
        assert reader.footer.source_header is not None and reader.pixel_format.packed
    with pytest.raises(FileExistsError):
        mrcz.write(second, movie)
    mrcz.write(second, movie, profile="small", slices=3, whole_cell=True, overwrite=True)
    with mrcz.open(second) as reader:
        assert reader.header.slices == 3


def test_mode_is_how_to_open_and_mrc_mode_is_the_format(tmp_path, movie):
    path = tmp_path / "a.mrc"
    with mrcz.open(path, "w", mrc_mode=6) as writer:
        writer.extend(movie)
    assert mrcz.read(path).dtype == np.uint16
    for wrong in (
        lambda: mrcz.open(path, "w", mode=16),
        lambda: mrcz.write(path, movie, mode=16),
        lambda: mrcz.Writer(path, mode=16),
        lambda: mrcz.open(path, "a", mrcz_mode=6),
    ):
        with pytest.raises(TypeError, match="mrc_mode"):
            wrong()
    with pytest.raises(ValueError, match="'w' or 'a'; the number of MRC's MODE is mrc_mode"):
        mrcz.open(path, mode=16)


def test_gain_is_a_map_and_counts_per_electron_a_number(path, movie):
    with pytest.raises(TypeError, match="did you mean counts_per_electron"):
        mrcz.write(path, movie, gain=2.0)
    with pytest.raises(TypeError, match="of its read and sum"):
        mrcz.open(path, gain=np.ones((12, 16)))
    gain = np.linspace(0.5, 2, 12 * 16, dtype="f4").reshape(12, 16)
    found = mrcz.read(path, gain=gain)
    assert found.dtype == np.float32 and np.array_equal(found, movie.astype("f4") * gain)


def test_keywords_of_the_other_mode_are_refused(path):
    with pytest.raises(TypeError, match="unexpected keyword 'permissive'"):
        mrcz.open(path, "w", permissive=True, overwrite=True)
    with pytest.raises(TypeError, match="unexpected keyword 'codec'"):
        mrcz.open(path, codec="zstd")


def test_read_takes_what_the_reader_takes(path, movie, monkeypatch):
    assert np.array_equal(mrcz.read(path, frames=[4, -6], verify=False), movie[[4, 0]])
    assert np.array_equal(mrcz.read(path, frames=2, options=mrcz.ReadOptions(n_threads=1)), movie[2])
    with mrcz.open(path) as reader:
        at = int(reader.index.offsets[1]) + 40
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(mrcz.ChunkError, match="frame 1"):
        mrcz.read(path)
    seen = []
    original = mrcz.file.reader.open_source
    monkeypatch.setattr("mrcz.file.reader.open_source", lambda p, o, **k: seen.append(o) or original(p, o, **k))
    assert mrcz.read(path, frames=0, storage_options={"anon": True}).shape == movie.shape[1:]
    assert seen == [{"anon": True}]


def test_a_correction_is_whatever_corrects(path, movie):
    """The protocol alone: nothing of mrcz.correct."""

    class Twice:
        shape = (12, 16)

        def apply_frame(self, frame, out=None, *, number=None):
            out[...] = 2.0 * frame + number
            return out

        def correct_sum(self, total, n_frames, out=None, *, frames=None):
            return (2.0 * total + np.sum(frames)).astype("f4")

    expected = 2.0 * movie.astype("f4") + np.arange(6, dtype="f4")[:, None, None]
    assert np.array_equal(mrcz.read(path, correction=Twice()), expected)
    with mrcz.open(path, correction=Twice()) as reader:
        assert reader.dtype == np.float32 and np.array_equal(reader[3], expected[3])
        assert np.array_equal(reader.sum(frames=[1, 5]), expected[[1, 5]].sum(0))
    with pytest.raises(TypeError, match=r"expected a mrcz\.correct\.Correction"):
        mrcz.open(path, correction=2.0)


@pytest.mark.parametrize("frames", ([0, 6], [-7], 6, -7, np.array([0, 6])))
def test_frames_that_are_not_there(path, frames):
    """A list is no slice: what is beyond the end is an error, and never wraps around to the beginning."""
    with pytest.raises(IndexError):
        mrcz.read(path, frames=frames)
    with mrcz.open(path) as reader:
        for name in ("sum", "mean", "min", "max", "std", "var"):
            with pytest.raises(IndexError):
                getattr(reader, name)(frames=frames)


def test_no_threads_is_an_error_everywhere(path, movie, tmp_path):
    with mrcz.open(path) as reader:
        for call in (reader.read, reader.sum, reader.mean, reader.min, reader.max, reader.std, reader.var):
            with pytest.raises(ValueError, match="n_threads must be at least 1, got 0"):
                call(n_threads=0)
    new = tmp_path / "new.mrcz"
    for call in (
        mrcz.open,
        mrcz.read,
        mrcz.Reader,
        mrcz.Writer.append_to,
        lambda p, **k: mrcz.open(p, "a", **k),
        lambda p, **k: mrcz.Writer(new, **k),
        lambda p, **k: mrcz.write(new, movie, **k),
        lambda p, **k: mrcz.Writer.append_to(new, **k),
        lambda p, **k: mrcz.ReadOptions(**k),
    ):
        with pytest.raises(ValueError, match="n_threads must be at least 1, got 0"):
            call(path, n_threads=0)
    assert not new.exists()


def test_a_codec_says_all_there_is_to_say(tmp_path, movie):
    ready = mrcz.Codec("zstd", level=9)
    for more in (
        {"level": 3},
        {"profile": "fast"},
        {"filter": "none"},
        {"blocksize": 512},
        {"checksum": False},
        {"pack": True},
        {"backend": "blosc"},
    ):
        with pytest.raises(ValueError, match=f"{next(iter(more))}: codec= is a Codec"):
            mrcz.write(tmp_path / "a.mrcz", movie, codec=ready, **more)
    mrcz.write(tmp_path / "a.mrcz", movie, codec=ready)
    with pytest.raises(ValueError, match="level: codec= is a Codec"):
        mrcz.open(tmp_path / "a.mrcz", "a", codec=ready, level=3)
    with mrcz.open(tmp_path / "a.mrcz", "a", codec=ready) as writer:
        assert writer.codec == "zstd" and writer.encoding.codec is ready
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        assert reader.codec == writer.codec


def test_names_are_functions_or_modules(path):
    for name in set(mrcz.__all__) - {"formats"}:  # a module on purpose: what there is to say of formats
        assert not isinstance(getattr(mrcz, name), types.ModuleType), name
    assert mrcz.describe(path).shape == (6, 12, 16)
    assert mrcz.compare(path, path)
    assert mrcz.recover(path, None)
