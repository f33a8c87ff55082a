"""Float movies as counts: what goes in comes out to the bit, and nothing is said to be done that is not."""

from __future__ import annotations

import filecmp
import itertools
import json
import shutil
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from rewriting import rewrite
from servers import RangeServer

import mrcz
from mrcz.cli import main
from mrcz.container import integers as record
from mrcz.container.footer import encode_footer
from mrcz.container.header.layout import COUNTS_LABEL
from mrcz.convert import gain_store
from mrcz.convert import integers as converting
from mrcz.errors import FormatError, FormatWarning, MrczError
from mrcz.mount.cache import FrameCache
from mrcz.mount.plain import PlainFile

SHAPE = (90, 101)


def gain_of(seed=0, shape=SHAPE):
    return (1 + 0.05 * np.random.default_rng(seed).standard_normal(shape)).astype("f4")


def movie_of(seed=0, gain=None, frames=12, dose=1.0):
    """Counts × gain, with a pixel filled from its neighbours, NaN, -0 and a value that is nothing."""
    gain = gain_of() if gain is None else gain
    counts = np.random.default_rng(seed + 100).poisson(dose, (frames, *gain.shape)).astype("f4")
    movie = (counts * gain).astype("f4")
    movie[:, 5, 7] = (movie[:, 5, 6] + movie[:, 5, 8]) / 2
    movie[3, 4, 5], movie[2, 0, 0], movie[1, -1, -1] = np.nan, -0.0, -17.5
    return movie


def bits(array):
    return np.ascontiguousarray(array).view("u4")


@pytest.fixture
def paths(tmp_path):
    """A float movie and the same as counts, its gain in the file."""
    mrcz.write(tmp_path / "a.mrc", movie_of(), pixel_size=1.1)
    made = mrcz.compress(tmp_path / "a.mrc", tmp_path / "a.mrcz", recover_integers=True)
    assert made.checked and made.integers["gain"]["path"] is None and made.integers_reason is None
    return tmp_path / "a.mrc", tmp_path / "a.mrcz"


@pytest.fixture
def stored(tmp_path):
    """The same with a store beside it."""
    mrcz.write(tmp_path / "a.mrc", movie_of(), pixel_size=1.1)
    made = mrcz.compress(tmp_path / "a.mrc", tmp_path / "a.mrcz", recover_integers=True, gain_store=tmp_path / "gains")
    return tmp_path / "a.mrcz", tmp_path / made.integers["gain"]["path"]


# ---- the file ----------------------------------------------------------------------------------------------------


def odd_files(folder):
    """Float movies with what headers may hold: each becomes a file of the name."""
    movie = movie_of()
    mrcz.write(folder / "plain.mrc", movie)
    mrcz.write(folder / "big.mrc", movie, byteorder=">")
    mrcz.write(folder / "extended.mrc", movie, extended_header=("FEI1", bytes(range(256)) * 3 * len(movie)))
    mrcz.write(folder / "volume.mrc", movie, kind="volume", pixel_size=(1, 2, 3))
    mrcz.write(folder / "labels.mrc", movie, labels=["by nobody", "twice"], voltage=300)
    mrcz.write(folder / "tail.mrc", movie[:1])  # one frame
    data = bytearray((folder / "plain.mrc").read_bytes())
    data[76:88] = np.array([0, -1, -2], "<f4").tobytes()  # statistics not computed
    data[196:220] = bytes(range(24))
    data[104:112] = b"\0" * 8
    (folder / "odd.mrc").write_bytes(data)
    return ["plain", "big", "extended", "volume", "labels", "odd"]


@pytest.mark.parametrize("store", [False, True])
def test_decompress_gives_the_very_file(tmp_path, store):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        for name in odd_files(tmp_path):
            source, small, again = tmp_path / f"{name}.mrc", tmp_path / f"{name}.mrcz", tmp_path / f"{name}.again.mrc"
            more = {"gain_store": tmp_path / "gains"} if store else {}
            made = mrcz.compress(source, small, recover_integers=True, **more)
            assert made.integers is not None and made.checked, name
            mrcz.decompress(small, again)
            assert filecmp.cmp(source, again, shallow=False), name
            with mrcz.open(small, raw=True) as counts:
                assert counts.dtype == np.uint8 and counts.header.mode == 0
    if store:
        assert len(list((tmp_path / "gains").iterdir())) == 1  # one for all


@pytest.mark.parametrize("dose", [1, 400])
def test_floats_that_are_integers(tmp_path, dose):
    movie = np.random.default_rng(0).poisson(dose, (3, 20, 31)).astype("f4")
    mrcz.write(tmp_path / "a.mrc", movie)
    made = mrcz.compress(tmp_path / "a.mrc", tmp_path / "a.mrcz", recover_integers=True)
    assert made.integers["gain"] is None and made.integers["exceptions"] == 0
    np.testing.assert_array_equal(mrcz.read(tmp_path / "a.mrcz"), movie)
    assert mrcz.read(tmp_path / "a.mrcz", raw=True).dtype == (np.uint8 if dose == 1 else np.uint16)


def test_counts_may_be_packed(tmp_path, paths):
    source, _ = paths
    made = mrcz.compress(source, tmp_path / "p.mrcz", recover_integers=True, pack=True)
    with mrcz.open(tmp_path / "p.mrcz", raw=True) as reader:
        assert reader.header.mode == 101
    assert made.checked
    np.testing.assert_array_equal(bits(mrcz.read(tmp_path / "p.mrcz")), bits(movie_of()))


OPERATIONS = {
    "divided": lambda n, g: n / g,
    "scaled before": lambda n, g: (n * np.float32(0.37)) * g,
    "scaled after": lambda n, g: (n * g) * np.float32(100),
    "float64": lambda n, g: (n.astype("f8") * (g.astype("f8") + 1e-9)).astype("f4"),
}


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_gain_that_is_given(tmp_path, name, store):
    gain = gain_of()
    counts = np.random.default_rng(5).poisson(1, (4, *SHAPE)).astype("f4")
    mrcz.write(tmp_path / "a.mrc", OPERATIONS[name](counts, gain))
    given = gain.astype("f8") + 1e-9 if name == "float64" else gain
    np.save(tmp_path / "gain.npy", given)
    more = {"gain_store": tmp_path / "gains"} if store else {}
    made = mrcz.compress(
        tmp_path / "a.mrc", tmp_path / "a.mrcz", recover_integers=True, gain=tmp_path / "gain.npy", **more
    )
    assert made.integers["exceptions"] == 0 and "the gain reference given" in made.notes[0]
    assert made.integers["divide"] == (name == "divided") and made.integers["wide"] == (name == "float64")
    with mrcz.open(tmp_path / "a.mrcz") as reader, mrcz.open(tmp_path / "a.mrc") as plain:
        np.testing.assert_array_equal(bits(reader.read()), bits(plain.read()))
        np.testing.assert_array_equal(bits(reader[1:3, 10:20, 3:50]), bits(plain[1:3, 10:20, 3:50]))
    np.testing.assert_array_equal(mrcz.read(tmp_path / "a.mrcz", raw=True), counts)


def test_a_wrong_gain_that_is_given(tmp_path, paths):
    source, _ = paths
    made = mrcz.compress(source, tmp_path / "b.mrcz", recover_integers=True, gain=gain_of(9))
    assert made.notes[:2] == (
        "stored as counts × a gain reference found in it",
        "the gain reference given is not what it was made with",
    )
    with pytest.raises(ValueError, match="the gain reference is"):
        mrcz.compress(source, tmp_path / "c.mrcz", recover_integers=True, gain=gain_of(shape=(3, 4)))
    with pytest.raises(ValueError, match="recover_integers=True"):
        mrcz.compress(source, tmp_path / "c.mrcz", gain=gain_of())


# ---- reading -----------------------------------------------------------------------------------------------------


def test_reads_like_the_float_file(paths):
    source, small = paths
    with mrcz.open(source) as plain, mrcz.open(small) as reader:
        assert (reader.shape, reader.dtype) == (plain.shape, np.dtype("f4"))
        keys = [
            0,
            -1,
            slice(2, 9, 3),
            np.s_[1, 5],
            np.s_[:, 3:8, 2:9],
            np.s_[4, 4:6, 5:8],
            np.s_[::-1, ::2, ::-3],
            [3, 1],
        ]
        for key in keys:
            np.testing.assert_array_equal(bits(reader[key]), bits(plain[key]), str(key))
        for threads in (1, 2, 3):
            np.testing.assert_array_equal(bits(reader.read(n_threads=threads)), bits(plain.read()))
        out = np.empty((2, *SHAPE), "f4")
        assert reader.read([7, 3], out=out) is out
        np.testing.assert_array_equal(bits(out), bits(plain.read([7, 3])))
        gain = gain_of(3)
        np.testing.assert_array_equal(bits(reader.read(2, gain=gain)), bits(plain.read(2, gain=gain)))
        np.testing.assert_array_equal(reader.read(dtype="f8"), plain.read(dtype="f8"))
        assert reader.sum().tobytes() == plain.sum().tobytes()
        assert reader.sum(weights=range(12), gain=gain).tobytes() == plain.sum(weights=range(12), gain=gain).tobytes()
        np.testing.assert_array_equal(reader.std(), plain.std())
        assert reader.frame_stats is None and reader.metadata == {} and not reader.oddities
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert mrcz.compare(source, small).ok


def test_a_correction_sees_the_floats(paths):
    source, small = paths

    class Doubled:
        shape = None

        def apply_frame(self, frame, out=None, *, number=None):
            out = np.empty(frame.shape, "f4") if out is None else out
            np.multiply(frame, np.float32(2 + number), out=out)
            return out

    with mrcz.open(source, correction=Doubled()) as plain, mrcz.open(small, correction=Doubled()) as reader:
        np.testing.assert_array_equal(bits(reader.read()), bits(plain.read()))


def test_raw_gives_the_counts(paths):
    _, small = paths
    with mrcz.open(small, raw=True) as reader:
        assert reader.dtype == np.uint8 and reader.integers is not None and not reader.gives_floats_of_counts
        counts = reader.read()
        assert reader.frame_stats is not None and reader.metadata == {}
    expected = np.random.default_rng(100).poisson(1, (12, *SHAPE))
    assert (counts == expected).mean() > 0.999
    assert mrcz.read(small, raw=True, frames=2).dtype == np.uint8
    assert mrcz.read(paths[0], raw=True).dtype == np.float32  # of other files: what is in them


def test_metadata_stay_beside_it(tmp_path):
    mrcz.write(tmp_path / "a.mrcz", movie_of(), metadata={"dose": 1.5, "integers": 3})
    mrcz.compress(tmp_path / "a.mrcz", tmp_path / "b.mrcz", recover_integers=True)
    with mrcz.open(tmp_path / "b.mrcz") as reader:
        assert reader.metadata == {"dose": 1.5, "integers": 3}
        np.testing.assert_array_equal(bits(reader.read()), bits(movie_of()))


# ---- where the gain lies -----------------------------------------------------------------------------------------


def test_without_the_gain_these_are_counts(tmp_path, stored):
    small, gain = stored
    gain.unlink()
    with pytest.warns(FormatWarning, match=f"counts of a float movie: its gain reference {gain.name} was not found"):
        reader = mrcz.open(small)
    with reader:
        assert reader.dtype == np.uint8 and len(reader.notes) == 1 and not reader.damage
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FormatWarning)
        with pytest.raises(FormatError, match="was not found"):
            mrcz.decompress(small, tmp_path / "again.mrc")
        with pytest.raises(FormatError, match="was not found"):
            mrcz.compress(small, tmp_path / "again.mrcz")
        with pytest.raises(FormatError, match="was not found"):
            PlainFile(small, FrameCache(1 << 20))
        assert "not found" in mrcz.describe(small).integers
        found = mrcz.verify(small)
        assert found.ok and any("was not found" in note for note in found.notes)
    assert not (tmp_path / "again.mrc").exists() and not (tmp_path / "again.mrcz").exists()


def test_where_the_gain_is_looked_for(tmp_path, stored, monkeypatch):
    small, gain = stored
    movie = movie_of()
    (tmp_path / "moved").mkdir()
    other = shutil.copy(small, tmp_path / "moved")
    with pytest.warns(FormatWarning, match="was not found"):
        mrcz.open(other).close()
    monkeypatch.setenv("MRCZ_GAIN_STORE", str(gain.parent))
    np.testing.assert_array_equal(bits(mrcz.read(other)), bits(movie))
    monkeypatch.delenv("MRCZ_GAIN_STORE")
    shutil.copy(gain, tmp_path / "moved")
    np.testing.assert_array_equal(bits(mrcz.read(other)), bits(movie))
    monkeypatch.chdir(tmp_path / "moved")
    gain.unlink()
    np.testing.assert_array_equal(bits(mrcz.read("a.mrcz")), bits(movie))


def test_another_gain_of_that_name_is_an_error(stored):
    small, gain = stored
    mrcz.write(gain, gain_of(5), overwrite=True)
    reader = mrcz.open(small)
    with reader, pytest.raises(FormatError, match="not the gain reference"):
        reader.read()
    assert not mrcz.verify(small).ok
    mrcz.write(gain, np.zeros((3, 4), "u1"), overwrite=True)
    with pytest.raises(FormatError, match="no gain reference"):
        mrcz.read(small)
    mrcz.write(gain, np.zeros((7, 5), "f4"), overwrite=True)
    with pytest.raises(FormatError, match=r"for frames of \(7, 5\)"):  # told before it is decoded
        mrcz.read(small)
    gain.write_bytes(b"nothing")
    with pytest.raises(FormatError, match="cannot be read"):
        mrcz.read(small)


def test_over_http(tmp_path, stored, monkeypatch):
    """The movie and its gain reference at a server; where there is no gain these are counts, as on a disk."""
    small, gain = stored
    (tmp_path / "movies").mkdir()
    small.rename(tmp_path / "movies" / "b.mrcz")
    mrcz.compress(
        tmp_path / "a.mrc", tmp_path / "movies" / "a.mrcz", recover_integers=True, gain_store=tmp_path / "gains"
    )
    with RangeServer(tmp_path) as server:
        with mrcz.open(f"{server.url}/movies/a.mrcz") as reader:
            assert reader.dtype == np.float32
            np.testing.assert_array_equal(bits(reader[3, 5:9]), bits(movie_of()[3, 5:9]))
        (tmp_path / "kept").mkdir()
        shutil.move(gain, tmp_path / "kept")
        with pytest.warns(FormatWarning, match="was not found"):
            assert mrcz.read(f"{server.url}/movies/a.mrcz", frames=0).dtype == np.uint8
        monkeypatch.setenv("MRCZ_GAIN_STORE", str(tmp_path / "kept"))
        np.testing.assert_array_equal(bits(mrcz.read(f"{server.url}/movies/a.mrcz")), bits(movie_of()))


def test_skip_existing_knows_what_is_there(tmp_path, paths, capsys):
    source, small = paths
    assert main(["compress", "--recover-integers", "--skip-existing", "--json", str(source)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["status"] == "skipped"
    again = movie_of(5)
    mrcz.write(source, again, overwrite=True)
    assert main(["compress", "--recover-integers", "--force", str(source)]) != 0  # an archive of another file
    np.testing.assert_array_equal(bits(mrcz.read(small)), bits(movie_of()))


@pytest.mark.parametrize("which", ["gain", "movie"])
def test_every_truncation_is_found(stored, which):
    small, gain = stored
    path = gain if which == "gain" else small
    data, movie = path.read_bytes(), movie_of()
    for size in [*range(0, len(data), len(data) // 60), len(data) - 1, len(data) - 64]:
        rewrite(path, data[:size])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = mrcz.read(small)
            except FormatError:
                continue
        assert (found.dtype == np.float32 and np.array_equal(bits(found), bits(movie))) or caught


def store(args):
    return gain_store.store_gain(args, gain_of(4), {"operation": {}})


def test_many_processes_store_one_gain(tmp_path):
    with ProcessPoolExecutor(4) as pool:
        made = set(pool.map(store, [str(tmp_path / "gains")] * 12))
    assert len(made) == 1 and len(list((tmp_path / "gains").iterdir())) == 1
    np.testing.assert_array_equal(mrcz.read(made.pop())[0], gain_of(4))


def test_a_damaged_gain_is_replaced(tmp_path):
    place = store(str(tmp_path))
    with open(place, "r+b") as file:
        file.truncate(2000)
    assert store(str(tmp_path)) == place
    np.testing.assert_array_equal(mrcz.read(place)[0], gain_of(4))


# ---- sessions ----------------------------------------------------------------------------------------------------


def session(tmp_path, movies, **more):
    made = []
    for k, movie in enumerate(movies):
        mrcz.write(tmp_path / f"{k}.mrc", movie)
        made.append(
            mrcz.compress(
                tmp_path / f"{k}.mrc",
                tmp_path / f"{k}.mrcz",
                recover_integers=True,
                gain_store=tmp_path / "gains",
                **more,
            )
        )
        np.testing.assert_array_equal(bits(mrcz.read(tmp_path / f"{k}.mrcz")), bits(movie))
    return made


def test_movies_share_a_gain(tmp_path, monkeypatch):
    first, *others = session(tmp_path, [movie_of(k, dose=3) for k in range(3)])
    assert "found in it" in first.notes[0]
    assert all("the session's gain reference" in made.notes[0] for made in others)
    assert len({made.integers["gain"]["sha256"] for made in (first, *others)}) == 1
    assert len(list((tmp_path / "gains").iterdir())) == 1


def test_pixels_that_were_not_hit_are_added(tmp_path):
    """Few electrons: each movie hits pixels that none before did; the old files keep the gain they were made with."""
    made = session(tmp_path, [movie_of(k, dose=0.04, frames=20) for k in range(4)])
    assert "had not been hit before" in made[1].notes[0]
    gains = [mrcz.read(tmp_path / one.integers["gain"]["path"])[0] for one in made]
    for before, after in itertools.pairwise(gains):
        same = np.isfinite(before)
        assert (before[same] == after[same]).all() and np.isfinite(after).sum() > same.sum()
    assert all(one.integers["exceptions"] < 60 for one in made)
    for k in range(4):  # also once all of them are there
        np.testing.assert_array_equal(bits(mrcz.read(tmp_path / f"{k}.mrcz")), bits(mrcz.read(tmp_path / f"{k}.mrc")))


def test_a_gain_that_changes_is_noticed(tmp_path):
    made = session(tmp_path, [movie_of(0), movie_of(1), movie_of(2, gain_of(8)), movie_of(3, gain_of(8)), movie_of(4)])
    assert any("found anew" in note for note in made[2].notes)
    assert not any("found anew" in note for one in made[3:] for note in one.notes)  # both are known now
    assert [one.integers["gain"]["sha256"] for one in made[1:]] == [
        made[k].integers["gain"]["sha256"] for k in (0, 2, 2, 0)
    ]


def test_a_gain_that_changes_within_a_movie(tmp_path):
    movie = np.concatenate([movie_of(0), movie_of(1, gain_of(8))])
    (made,) = [
        mrcz.write(tmp_path / "a.mrc", movie)
        or mrcz.compress(tmp_path / "a.mrc", tmp_path / "a.mrcz", recover_integers=True, gain=gain_of())
    ]
    assert made.integers is None and "no multiples of one" in made.integers_reason


# ---- what is stored as it is -------------------------------------------------------------------------------------


def blurred(movie):
    return (movie + np.roll(movie, 1, axis=1) * np.float32(0.37)).astype("f4")


def blobs():
    """Falcon 3 in counting mode: int16, an electron is a blob of 3 × 3 pixels that sums to 100, times the gain."""
    rng = np.random.default_rng(5)
    counts = rng.poisson(0.05, (6, *SHAPE)).astype("f4")
    kernel = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]) * 100
    spread = sum(
        np.roll(counts, (y - 1, x - 1), axis=(1, 2)) * kernel[y, x] for y, x in itertools.product(range(3), repeat=2)
    )
    return np.rint(spread * gain_of()).astype("i2")


AS_IT_IS = {
    "Falcon's int16": (blobs, "integers already"),
    "filtered": (lambda: blurred(np.nan_to_num(movie_of())), "resampled, filtered"),
    "float16": (lambda: movie_of().astype("f2"), "float16"),
    "float16 as float32": (lambda: movie_of().astype("f2").astype("f4"), "float16"),
    "SerialEM's shorts": (lambda: (np.nan_to_num(movie_of()) * 100).astype("i2"), "integers already"),
    "one frame": (lambda: movie_of()[:1], "two different values"),
}


@pytest.mark.parametrize("name", AS_IT_IS)
def test_the_reason_is_said(tmp_path, name, capsys):
    make, reason = AS_IT_IS[name]
    mrcz.write(tmp_path / "a.mrc", make())
    assert main(["compress", "--recover-integers", "--json", str(tmp_path / "a.mrc")]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[0])
    assert said["integers"] is None and reason in said["integers_reason"] and said["status"] == "done"
    assert any(reason in note for note in said["notes"])
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        assert reader.integers is None
        np.testing.assert_array_equal(reader.read(), make())
    (tmp_path / "back").mkdir()
    assert main(["decompress", str(tmp_path / "a.mrcz"), "-o", str(tmp_path / "back")]) == 0
    assert filecmp.cmp(tmp_path / "a.mrc", tmp_path / "back" / "a.mrc", shallow=False)
    if "integers already" in reason:
        assert (tmp_path / "a.mrcz").stat().st_size < 0.7 * (tmp_path / "a.mrc").stat().st_size


def test_command_line(tmp_path, capsys):
    gain = gain_of()
    for k in "ab":
        mrcz.write(tmp_path / f"{k}.mrc", movie_of(ord(k)))
    mrcz.write(tmp_path / "gain.mrc", gain)
    files = [str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc")]
    words = [
        "compress",
        "--recover-integers",
        "--gain",
        str(tmp_path / "gain.mrc"),
        "--gain-store",
        str(tmp_path / "g"),
    ]
    assert main([*words, "--remove", *files]) == 0
    assert "the gain reference given" in capsys.readouterr().out
    assert not (tmp_path / "a.mrc").exists()
    assert main(["info", str(tmp_path / "a.mrcz")]) == 0
    assert "floats, stored as counts × gain" in capsys.readouterr().out
    found = mrcz.describe(tmp_path / "a.mrcz")
    assert 1.7 < found.entropy_bits < 2 and found.dtype == "<f4" and found.mode == 2
    assert main(["verify", str(tmp_path / "a.mrcz")]) == 0
    assert main(["validate", str(tmp_path / "a.mrcz")]) == 0
    capsys.readouterr()
    assert main(["decompress", str(tmp_path / "a.mrcz")]) == 0
    np.testing.assert_array_equal(bits(mrcz.read(tmp_path / "a.mrc")), bits(movie_of(ord("a"))))
    assert main(["compress", "--gain", "x", *files]) == 2


# ---- nothing is said to be done that is not ----------------------------------------------------------------------


@pytest.mark.parametrize("remove", [False, True])
def test_counts_that_do_not_multiply_out_are_never_kept(tmp_path, paths, monkeypatch, remove):
    source, _ = paths
    right = converting.Integers.count

    def wrong(self, frames):
        counts = right(self, frames)
        counts[0, 30, 30] += 1
        return counts

    monkeypatch.setattr(converting.Integers, "count", wrong)
    with pytest.raises(MrczError, match="not the same"):
        mrcz.compress(source, tmp_path / "b.mrcz", recover_integers=True, remove=remove)
    assert source.exists() and not (tmp_path / "b.mrcz").exists()


def rewritten(path, change):
    """The file with another record, or other columns, and all checksums right."""
    with mrcz.open(path, raw=True) as reader:
        footer, index, source = reader.footer, reader.index, reader.source
        extra, metadata = dict(footer.extra), footer.metadata(source.read)
        extended, head = reader.extended_bytes, reader.header.tobytes()
    extra[record.ENTRY] = dict(extra[record.ENTRY])
    change(extra[record.ENTRY], metadata[record.COLUMNS])
    new = encode_footer(
        index, header_bytes=head, extended_header_bytes=extended, metadata=metadata, start=footer.trailer.start,
        source_header=footer.source_header, extra=extra,
    )  # fmt: skip
    path.write_bytes(path.read_bytes()[: footer.trailer.start] + new)


def no_path(entry, columns):
    entry["gain"] = {**entry["gain"], "path": "../../etc/passwd"}


def set_to(name, value):
    def change(entry, columns):
        entry[name] = value

    return change


def column(name, change):
    def changed(entry, columns):
        columns[name] = change(columns[name])

    return changed


def shifted(data):
    """Places of exceptions, all at the last pixel and beyond."""
    return bytes(len(data) // 4) * 3 + b"\xff" * (len(data) // 4)


HOSTILE = {
    "version": set_to("version", "1"),
    "dtype": set_to("dtype", "float64"),
    "divide": set_to("divide", 1),
    "before": set_to("before", -1.0),
    "after": set_to("after", float("nan")),
    "denormal": set_to("after", 1e-300),
    "exceptions": set_to("exceptions", -1),
    "more exceptions": set_to("exceptions", 1 << 60),
    "gain": set_to("gain", 7),
    "checksum": set_to("gain", {"sha256": "0" * 63, "dtype": "float32", "path": None}),
    "gain dtype": set_to("gain", {"sha256": "0" * 64, "dtype": "float16", "path": None}),
    "path": no_path,
    "another gain": set_to("gain", {"sha256": "0" * 64, "dtype": "float32", "path": None}),
    "double gain": lambda entry, columns: entry.update(gain={**entry["gain"], "dtype": "float64"}),
    "no frames": column("frames", lambda data: b""),
    "frames": column("frames", lambda data: b"\xff" * len(data)),
    "frames of text": column("frames", lambda data: "x" * len(data)),
    "pixels short": column("pixels", lambda data: data[:-1]),
    "pixels beyond": column("pixels", shifted),
    "pixels not in order": column("pixels", lambda data: bytes(len(data))),
    "values short": column("values", lambda data: data[4:]),
    "gain short": column("gain", lambda data: data[4:]),
    "gain changed": column("gain", lambda data: b"\1" + data[1:]),
    "no gain": lambda entry, columns: columns.pop("gain"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_record_that_lies(paths, name):
    _, small = paths
    rewritten(small, lambda entry, columns: None)
    np.testing.assert_array_equal(bits(mrcz.read(small)), bits(movie_of()))
    rewritten(small, HOSTILE[name])
    with pytest.raises(FormatError, match=r"integers|gain"):
        mrcz.read(small)
    assert not mrcz.verify(small).ok
    counts = mrcz.read(small, raw=True)  # they are as good as they were
    assert counts.dtype == np.uint8


def with_ranges(entry, columns):
    """The record of integers of which each frame has a range of its own."""
    nz = len(columns["frames"]) // 4
    entry.clear()
    entry.update(version=2, dtype="float32", exceptions=0)
    columns.clear()
    columns.update(frames=bytes(4 * nz), pixels=b"", values=b"", bits=bytes([8]) * nz)
    columns.update({name: planes(np.full(nz, value, "<f4")) for name, value in (("low", -1.5), ("high", 7.25))})


def planes(array):
    """All lowest bytes first."""
    return array.view("u1").reshape(len(array), -1).T.tobytes()


HOSTILE_RANGES = {
    "dtype": set_to("dtype", "float64"),
    "exceptions": set_to("exceptions", 1),
    "no exceptions": lambda entry, columns: entry.pop("exceptions"),
    "no bits": lambda entry, columns: columns.pop("bits"),
    "bits short": column("bits", lambda data: data[1:]),
    "17 bits": column("bits", lambda data: data[1:] + b"\x11"),
    "255 bits": column("bits", lambda data: b"\xff" * len(data)),
    "no low": lambda entry, columns: columns.pop("low"),
    "high short": column("high", lambda data: data[4:]),
    "high of text": column("high", lambda data: "x" * len(data)),
    "low infinite": column("low", lambda data: planes(np.full(len(data) // 4, np.inf, "<f4"))),
    "high NaN": column("high", lambda data: planes(np.full(len(data) // 4, np.nan, "<f4"))),
}


@pytest.mark.parametrize("name", HOSTILE_RANGES)
def test_ranges_that_lie(paths, name):
    _, small = paths
    rewritten(small, with_ranges)
    counts = mrcz.read(small, raw=True)
    expected = counts.astype("f4") / np.float32(255) * np.float32(8.75) + np.float32(-1.5)
    np.testing.assert_array_equal(mrcz.read(small), expected)
    rewritten(small, HOSTILE_RANGES[name])
    with pytest.raises(FormatError, match="integers"):
        mrcz.read(small)
    assert not mrcz.verify(small).ok
    np.testing.assert_array_equal(mrcz.read(small, raw=True), counts)


def test_a_record_of_a_later_version(paths):
    _, small = paths
    rewritten(small, set_to("version", 3))
    with pytest.warns(FormatWarning, match="version 3, known is 2: these are its counts"):
        reader = mrcz.open(small)
    with reader:
        assert reader.dtype == np.uint8


def test_every_flipped_byte_of_the_metadata_is_found(paths):
    """Exceptions and gain: an error, or the very same floats."""
    _, small = paths
    good = small.read_bytes()
    movie = movie_of()
    with mrcz.open(small) as reader:
        offset, size = reader.footer.metadata_span
        end = len(good)
    for at in [*range(offset, offset + size, 997), *range(offset + size, end, 61)]:
        bad = bytearray(good)
        bad[at] ^= 0x10
        rewrite(small, bad)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = mrcz.read(small)
            except FormatError:
                continue
        assert caught or np.array_equal(bits(found), bits(movie))


# ---- what other commands make of it ------------------------------------------------------------------------------


def test_mounted_it_is_the_float_file(paths):
    source, small = paths
    file = PlainFile(small, FrameCache(1 << 24))
    assert file.read(0, file.size) == source.read_bytes()
    assert file.read(70_000, 9000) == source.read_bytes()[70_000:79_000]
    file.close()


@pytest.mark.parametrize("which", ["paths", "stored"])
def test_compressed_once_more_it_stays_counts(request, tmp_path, which):
    small = request.getfixturevalue(which)[which == "paths"]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    new = tmp_path / "deep" / "er" / "new.mrcz"
    made = mrcz.compress(small, new, profile="small", check=True)
    assert made.integers is not None and (made.integers["gain"]["path"] is None) == (which == "paths")
    np.testing.assert_array_equal(bits(mrcz.read(new)), bits(movie_of()))
    mrcz.decompress(new, tmp_path / "again.mrc")
    assert filecmp.cmp(tmp_path / "again.mrc", tmp_path / "a.mrc", shallow=False)


def test_edited_it_stays_counts(paths, tmp_path):
    _, small = paths
    mrcz.edit_header(small, pixel_size=2.5, statistics="compute")
    np.testing.assert_array_equal(bits(mrcz.read(small)), bits(movie_of()))
    mrcz.decompress(small, tmp_path / "b.mrc")
    with mrcz.open(tmp_path / "b.mrc") as reader:
        assert reader.pixel_size[0] == 2.5
        assert abs(reader.header.stats[1] - np.nanmax(movie_of())) < 1e-5


def test_no_frames_are_added(paths):
    with pytest.raises(ValueError, match="counts of a float movie"):
        mrcz.open(paths[1], "a")


def damage(path, frame):
    with mrcz.open(path, raw=True) as reader:
        at = int(reader.index.offsets[frame]) + 40
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("which", ["paths", "stored"])
def test_recovered_it_keeps_the_record(request, tmp_path, which):
    small = request.getfixturevalue(which)[which == "paths"]
    damage(small, 2)
    (tmp_path / "saved").mkdir()
    new = tmp_path / "saved" / "new.mrcz"
    found = mrcz.recover(small, new)
    assert not found.ok and len(found.lost) == 1
    np.testing.assert_array_equal(bits(mrcz.read(new)), bits(np.delete(movie_of(), 2, axis=0)))


def test_recovered_without_exceptions_it_is_counts(tmp_path, paths):
    _, small = paths
    with mrcz.open(small) as reader:
        offset, _ = reader.footer.metadata_span
    data = bytearray(small.read_bytes())
    data[offset + 9] ^= 0xFF
    small.write_bytes(data)
    found = mrcz.recover(small, tmp_path / "new.mrcz")
    assert any("counts are kept" in note for note in found.notes)
    with pytest.warns(FormatWarning, match="the counts of a float movie"):
        assert mrcz.read(tmp_path / "new.mrcz").dtype == np.uint8


# ---- the footer is lost ------------------------------------------------------------------------------------------


@pytest.fixture(params=["paths", "stored"])
def cut(request, tmp_path):
    """A movie as counts whose footer is gone."""
    path = request.getfixturevalue(request.param)[request.param == "paths"]
    with mrcz.open(path) as reader:
        end = reader.index.end
    (tmp_path / "cut.mrcz").write_bytes(path.read_bytes()[:end])
    return path, tmp_path / "cut.mrcz"


def test_the_header_says_that_these_are_counts(tmp_path, cut):
    whole, path = cut
    with mrcz.open(whole) as reader:
        assert reader.header.labels == ["MRCZ1.0.0", COUNTS_LABEL] and reader.dtype == np.float32
    with mrcz.open(whole, raw=True) as reader:
        counts = reader.read()
    with pytest.warns(FormatWarning, match="the counts of a float movie"), mrcz.open(path) as reader:
        assert any("footer that is gone" in text for text in reader.oddities)
        assert np.array_equal(reader.read(), counts)
    with mrcz.open(path, raw=True) as reader:  # who asks for counts knows
        assert np.array_equal(reader.read(), counts)
    found = mrcz.check.recover.recover(path, tmp_path / "saved.mrcz")
    assert any("the counts of a float movie" in note for note in found.notes)
    with pytest.warns(FormatWarning, match="the counts of a float movie"), mrcz.open(tmp_path / "saved.mrcz") as reader:
        assert np.array_equal(reader.read(), counts)


def test_counts_that_lost_their_footer_say_so_further_on(tmp_path, cut):
    """Compressed once more they are counts still."""
    with pytest.warns(FormatWarning, match="the counts of a float movie"):
        mrcz.compress(cut[1], tmp_path / "again.mrcz")
    with pytest.warns(FormatWarning, match="the counts of a float movie"):
        mrcz.read(tmp_path / "again.mrcz")


def test_floats_that_were_counts_do_not_say_so(tmp_path, paths, capsys):
    """What is computed of the floats, and a plain file of a movie that never was one."""
    np.save(tmp_path / "a.npy", mrcz.read(paths[0]))
    mrcz.compress(tmp_path / "a.npy", tmp_path / "n.mrcz", recover_integers=True)
    with mrcz.open(tmp_path / "n.mrcz") as reader:
        assert COUNTS_LABEL in reader.header.labels
    mrcz.decompress(tmp_path / "n.mrcz", tmp_path / "n.mrc")
    with mrcz.open(paths[1]) as reader, mrcz.Writer(tmp_path / "twice.mrcz", header=reader.header) as writer:
        writer.extend(2 * reader.read())
    again = mrcz.compress(tmp_path / "n.mrcz", tmp_path / "again.mrcz")
    assert again.integers is not None
    for name, labels in (("n.mrc", 0), ("twice.mrcz", 0), ("again.mrcz", 1)):
        with mrcz.open(tmp_path / name) as reader:
            assert reader.header.labels.count(COUNTS_LABEL) == labels, name
            assert reader.dtype == np.float32


def test_a_header_that_is_full_keeps_its_labels(tmp_path):
    labels = [f"label {k}" for k in range(9)]
    mrcz.write(tmp_path / "a.mrc", movie_of(), labels=labels)
    mrcz.compress(tmp_path / "a.mrc", tmp_path / "a.mrcz", recover_integers=True)
    with mrcz.open(tmp_path / "a.mrcz") as reader:
        assert reader.header.labels == ["MRCZ1.0.0", *labels]
    mrcz.decompress(tmp_path / "a.mrcz", tmp_path / "back.mrc")
    assert filecmp.cmp(tmp_path / "a.mrc", tmp_path / "back.mrc", shallow=False)
