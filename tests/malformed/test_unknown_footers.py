"""A footer of a version, flags or trailer that are not known here counts as absent: nothing is wrong with the file.

docs/container.md §3. Said once, as a note; the pixels are there, and nothing that may be in that footer is lost.
"""

import io
import json
import struct
import warnings
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
from malformed.footers import MAGIC, MARK, join, split

import mrcz
from mrcz import cli
from mrcz.check.describe import describe
from mrcz.check.recover import recover
from mrcz.container.chunks import xxh64
from mrcz.container.footer import UnknownFooter, parse_trailer
from mrcz.storage.source import FileSource

pytestmark = pytest.mark.usefixtures("still")
STACK = np.random.default_rng(0).poisson(3, (3, 32, 24)).astype("u2")
UNKNOWN = [
    *({"version": version} for version in (0, 2, 3, 255, 256, 65535)),
    *({"flags": 1 << bit | low} for bit in range(2, 16) for low in (0, 1)),
    *({"flags": flags} for flags in (3, 65535)),
    *({"size": size} for size in (0, 63, 65, 128, 2**32 - 1)),
    {"version": 2, "flags": 4},
]
SOME = [{"version": 2}, {"flags": 4}, {"size": 128}]


def ids(wrong):
    return "-".join(f"{name}{value}" for name, value in wrong.items())


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "a.mrc"
    mrcz.write(path, STACK, pixel_size=1.5)
    return path


@pytest.fixture
def later(tmp_path, plain):
    """Make the file of a version to come: compressed from `plain`, with metadata of its own."""

    def make(wrong):
        path = tmp_path / "a.mrcz"
        mrcz.compress(plain, path, overwrite=True)
        parts = split(path.read_bytes())
        parts.trailer.update(wrong)
        path.write_bytes(join(parts))
        return path

    return make


def run(*words):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main(list(map(str, words)))
    return code, out.getvalue(), err.getvalue()


def quietly(function, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mrcz.FormatWarning)
        return function(*arguments, **options)


def test_every_version_and_every_flag():
    def trailer(version, flags, size):
        values = struct.pack("<QQQQQHHI", 2000, 10, 10, 0, 1, version, flags, size)
        return values + struct.pack("<Q", xxh64(values)) + MAGIC

    for number in range(65536):
        for version, flags in ((number, 0), (1, number)):
            tail = trailer(version, flags, 64)
            if version == 1 and flags in (0, 1, 2):
                assert parse_trailer(tail, 4000).version == 1
                continue
            try:
                parse_trailer(tail, 4000)
            except UnknownFooter:
                continue
            raise AssertionError((version, flags))
    broken = bytearray(trailer(2, 0, 64))
    broken[40] ^= 1  # a bit that flipped is damage, not a version
    with pytest.raises(mrcz.FormatError, match="checksum"):
        parse_trailer(bytes(broken), 4000)


@pytest.mark.parametrize("wrong", UNKNOWN, ids=ids)
def test_it_counts_as_absent(later, wrong):
    path = later(wrong)
    with pytest.warns(mrcz.FormatWarning) as caught, mrcz.open(path) as reader:
        assert np.array_equal(reader.read(), STACK) and reader.pixel_size == (1.5, 1.5, 1.5)
        assert reader.footer is None and reader.index.hashes is None and reader.metadata == {}
        assert reader.damage == () and len(reader.notes) == 1 and reader.has_unknown_footer
    assert [str(w.message) for w in caught] == [f"{path}: {reader.notes[0]}"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = mrcz.verify(path)
        assert found.ok and not found.faults and found.notes == reader.notes and not found.checksums
        assert mrcz.verify(path, fast=True).ok
        verdict = mrcz.validate(path)
        assert verdict.ok and reader.notes[0] in verdict.notes
        saved = recover(path, None)
        assert saved.ok and sum(reader.notes[0] in note for note in saved.notes) == 1
    assert quietly(describe, path).notes.count(reader.notes[0]) == 1


@pytest.mark.parametrize("wrong", SOME, ids=ids)
def test_the_command_line_says_it_once(later, tmp_path, wrong):
    path = later(wrong)
    code, out, err = run("verify", path)
    assert code == 0 and out.startswith(f"{path}: ok") and (out + err).count("not known to this version") == 1
    code, out, err = run("verify", "--json", path)
    assert code == 0 and err.count("not known") == 0
    assert json.loads(out.splitlines()[0])["ok"] is True and len(json.loads(out.splitlines()[0])["notes"]) == 1
    for command in (
        ["info", path],
        ["validate", path],
        ["header", "--set", "pixel-size=2", path],
        ["decompress", path, "-o", tmp_path / "b.mrc"],
        ["recover", path],
    ):
        code, out, err = run(*command)
        assert code == 0, (command, out, err)
        assert 1 <= (out + err).count("footer, of") <= 2, (command, out, err)
    assert np.array_equal(mrcz.read(tmp_path / "b.mrc"), STACK)
    assert np.array_equal(mrcz.read(tmp_path / "a.recovered.mrcz"), STACK)


@pytest.mark.parametrize("wrong", UNKNOWN, ids=ids)
def test_an_append_keeps_it_inside_its_own(later, wrong):
    path = later(wrong)
    whole = path.read_bytes()
    with pytest.warns(mrcz.FormatWarning, match="not known"), mrcz.open(path, "a", metadata={"more": 1}) as writer:
        writer.append(STACK[0])
    assert mrcz.verify(path).ok and not mrcz.verify(path).notes
    with mrcz.open(path, "a") as writer:  # and once more, now with a footer of ours
        writer.append(STACK[1])
    with mrcz.open(path) as reader:
        assert np.array_equal(reader.read(), STACK[[0, 1, 2, 0, 1]])
        kept = reader.footer.extra["replaced_footer"]
        assert kept.startswith(MARK) and kept.endswith(MAGIC) and whole.endswith(kept)
        assert reader.metadata == {"more": 1} and len(reader.index.hashes) == 5


@pytest.mark.parametrize("wrong", SOME, ids=ids)
def test_an_append_that_ends_badly(later, wrong):
    path = later(wrong)
    whole = path.read_bytes()
    with pytest.warns(mrcz.FormatWarning), pytest.raises(KeyError), mrcz.open(path, "a") as writer:
        raise KeyError
    assert path.read_bytes() == whole and len(writer) == 3
    with pytest.warns(mrcz.FormatWarning), pytest.raises(KeyError), mrcz.open(path, "a") as writer:
        writer.append(STACK[0])
        raise KeyError
    with mrcz.open(path) as reader:
        assert np.array_equal(reader.read(), STACK) and whole.endswith(reader.footer.extra["replaced_footer"])
    assert mrcz.verify(path).ok


def test_one_that_is_too_large_to_be_kept(later, monkeypatch):
    path = later({"version": 2})
    whole = path.read_bytes()
    monkeypatch.setattr("mrcz.file.appending._LARGEST_KEPT", 100)
    with pytest.warns(mrcz.FormatWarning), pytest.raises(mrcz.MrczError, match="too large to be kept"):
        mrcz.open(path, "a")
    assert path.read_bytes() == whole


@pytest.mark.parametrize("wrong", SOME, ids=ids)
def test_editing_the_header_leaves_it(later, wrong):
    path = later(wrong)
    before = path.read_bytes()
    done = quietly(mrcz.edit_header, path, pixel_size=2.0)
    assert done.written and any("later version" in note for note in done.notes)
    assert path.read_bytes()[1024:] == before[1024:]
    with quietly(mrcz.open, path) as reader:
        assert reader.pixel_size[0] == 2.0 and np.array_equal(reader.read(), STACK)


@pytest.mark.parametrize("wrong", SOME, ids=ids)
def test_archives(later, plain, tmp_path, wrong):
    """Done already, for --skip-existing; never replaced or removed as if nothing were in that footer."""
    path = later(wrong)
    whole = path.read_bytes()
    code, out, err = run("compress", "--skip-existing", plain)
    assert code == 0 and "holds it already" in out and err.count("not known") == 1
    code, out, err = run("compress", "--force", plain)
    assert code == 1 and "may hold metadata" in err and path.read_bytes() == whole
    code, out, err = run("decompress", "--remove", path, "-o", tmp_path / "b.mrc")
    assert code == 1 and "metadata may be in it" in err and path.read_bytes() == whole
    assert np.array_equal(mrcz.read(tmp_path / "b.mrc"), STACK)
    code, out, err = run("compress", "--replace-any", plain)
    assert code == 0 and mrcz.verify(path).ok and path.read_bytes() != whole


def test_behind_a_plain_file(plain):
    """Today no plain file has a footer; the pixels are where they were."""
    parts = split_of_nothing(plain.read_bytes())
    plain.write_bytes(parts)
    with pytest.warns(mrcz.FormatWarning, match="not known"), mrcz.open(plain) as reader:
        assert np.array_equal(reader.read(), STACK)
    assert mrcz.verify(plain).ok and recover(plain, None).ok


def split_of_nothing(front):
    from malformed.footers import Parts

    return join(Parts(bytearray(front), b"", {"frames": 3}, {"version": 2}))


def test_something_behind_it(later):
    """It is not at the end: the frames are found, and appending is for `mrcz recover`."""
    path = later({"version": 2})
    path.write_bytes(path.read_bytes() + b"something")
    with pytest.warns(mrcz.FormatWarning, match="not known") as caught, mrcz.open(path) as reader:
        assert np.array_equal(reader.read(), STACK) and reader.damage == ()
    assert len(caught) == 1 and mrcz.verify(path).ok and len(mrcz.verify(path).notes) == 2
    with pytest.raises(mrcz.MrczError, match="mrcz recover"):
        quietly(mrcz.open, path, "a")
    assert recover(path, None).ok


def test_one_of_ours_that_was_only_begun_behind_it(later):
    path = later({"version": 2})
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(5000) + MARK + b"begun")
    with quietly(mrcz.open, path, "a") as writer:
        writer.append(STACK[0])
    with mrcz.open(path) as reader:
        assert len(reader) == 4 and whole.endswith(reader.footer.extra["replaced_footer"])
    assert mrcz.verify(path).ok


def test_one_full_of_ends_is_read_once(later, monkeypatch):
    """Every eight bytes of it look like the end of a footer: that is no reason to look through it a million times."""
    path = later({"version": 2})
    data = path.read_bytes()
    with pytest.warns(mrcz.FormatWarning), mrcz.open(path) as reader:
        end = reader.index.end
    section = MARK + (MAGIC + b"x") * 100_000 + data[end + len(MARK) :]
    path.write_bytes(data[:end] + section)
    reads = []
    real = FileSource.read
    monkeypatch.setattr(FileSource, "read", lambda source, at, n: (reads.append(n), real(source, at, n))[1])
    with pytest.warns(mrcz.FormatWarning, match="not known"), mrcz.open(path, "a") as writer:
        writer.append(STACK[0])
    assert len(reads) < 50
    with mrcz.open(path) as reader:
        assert np.array_equal(reader.read(), np.concatenate([STACK, STACK[:1]]))
        assert reader.footer.extra["replaced_footer"] == section
