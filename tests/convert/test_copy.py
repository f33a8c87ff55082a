"""Copies: from URLs too, with a codec as a value, and with what the footer says of the source."""

import dataclasses
import errno
import gzip
import os
import time

import numpy as np
import pytest
from servers import RangeServer

import mrcz
from mrcz.check.origin import file_name, origin
from mrcz.container.footer import encode_footer, load_footer
from mrcz.convert.copy import DamagedSourceError, TrailingBytesError, compress, decompress
from mrcz.errors import OtherSourceError
from mrcz.storage.disk import Disk
from mrcz.storage.whole import NewFile


@pytest.fixture
def movie(tmp_path, rng):
    frames = rng.poisson(2.0, (5, 64, 80)).astype("u1")
    mrcz.write(tmp_path / "a.mrc", frames, pixel_size=1.5)
    return frames


@pytest.mark.parametrize("check", [False, True])
def test_there_and_back_over_http(tmp_path, movie, check):
    with RangeServer(tmp_path) as server:
        made = compress(f"{server.url}/a.mrc", tmp_path / "b.mrcz", check=check)
        assert made.ok and made.n_frames == 5 and made.checked is check and made.source == f"{server.url}/a.mrc"
        assert made.source_bytes == os.path.getsize(tmp_path / "a.mrc")
        assert made.destination_bytes == made.stored_bytes == os.path.getsize(tmp_path / "b.mrcz")
        with mrcz.open(tmp_path / "b.mrcz") as reader:
            assert origin(reader).name == "a.mrc" and origin(reader).size == made.source_bytes
        decompress(f"{server.url}/b.mrcz", tmp_path / "c.mrc", check=check)
    assert (tmp_path / "c.mrc").read_bytes() == (tmp_path / "a.mrc").read_bytes()


def test_a_url_is_the_same_source_as_its_file(tmp_path, movie):
    """Replacing an archive asks what it was made from; where that lay is no matter."""
    compress(tmp_path / "a.mrc", tmp_path / "a.mrcz")
    first = (tmp_path / "a.mrcz").read_bytes()
    with pytest.raises(FileExistsError):
        compress((tmp_path / "a.mrc").as_uri(), tmp_path / "a.mrcz")
    compress((tmp_path / "a.mrc").as_uri(), tmp_path / "a.mrcz", overwrite=True)
    assert (tmp_path / "a.mrcz").read_bytes() == first
    (tmp_path / "below").mkdir()
    mrcz.write(tmp_path / "below/a.mrc", movie + np.uint8(1))
    with pytest.raises(mrcz.MrczError, match=r"another a\.mrc"):
        compress((tmp_path / "below/a.mrc").as_uri(), tmp_path / "a.mrcz", overwrite=True)
    assert (tmp_path / "a.mrcz").read_bytes() == first


def test_a_url_is_not_removed(tmp_path, movie):
    with pytest.raises(ValueError, match="not removed"):
        compress((tmp_path / "a.mrc").as_uri(), tmp_path / "a.mrcz", remove=True)
    assert sorted(os.listdir(tmp_path)) == ["a.mrc"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/data/movie.mrc", "movie.mrc"),
        ("/data/movie.mrc.gz", "movie.mrc"),
        ("https://host/a/movie.mrc", "movie.mrc"),
        ("https://me:secret@host/a/movie.mrc?token=1/2#x", "movie.mrc"),
        ("s3://bucket/movie.mrcs", "movie.mrcs"),
        ("simplecache::https://host/a/movie.mrc", "movie.mrc"),
        (b"/data/movie.mrc".decode(), "movie.mrc"),
    ],
)
def test_what_a_source_is_called(source, name):
    assert file_name(source) == name


def test_a_codec_as_a_value(tmp_path, movie):
    by_words = compress(tmp_path / "a.mrc", tmp_path / "b.mrcz", codec="zlib", level=6)
    by_value = compress(tmp_path / "a.mrc", tmp_path / "c.mrcz", codec=mrcz.Codec("zlib", level=6))
    assert by_words.stored_bytes == by_value.stored_bytes
    assert (tmp_path / "b.mrcz").read_bytes() == (tmp_path / "c.mrcz").read_bytes()
    for more in ({"level": 6}, {"profile": "small"}, {"filter": "none"}, {"blocksize": 4096}, {"pack": True}):
        with pytest.raises(ValueError, match="a Codec says level"):
            compress(tmp_path / "a.mrc", tmp_path / "d.mrcz", codec=mrcz.Codec("zstd"), **more)
    assert not (tmp_path / "d.mrcz").exists()


def test_a_copy_that_differs_is_not_made(tmp_path, movie, monkeypatch):
    """The proof looks at the bytes that are on the disk."""
    from mrcz.convert import copy

    check = copy.check_copy

    def spoiled(reader, source, new, tell):
        os.pwrite(new.fd, b"\xff", 1024 + 40)
        check(reader, source, new, tell)

    monkeypatch.setattr(copy, "check_copy", spoiled)
    with pytest.raises(mrcz.MrczError, match="nothing was written"):
        compress(tmp_path / "a.mrc", tmp_path / "a.mrcz", check=True)
    assert sorted(os.listdir(tmp_path)) == ["a.mrc"]


# ---- what is told ----------------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path, movie):
    """The same, not written to just now."""
    return aged(tmp_path / "a.mrc")


def aged(path, seconds=100):
    """A file whose time is so long ago, and no multiple of 10 ms, as those of FAT are."""
    then = time.time_ns() - seconds * 10**9
    then += 1 if then % 10_000_000 == 0 else 0
    os.utime(path, ns=(then, then))
    return path


@pytest.mark.parametrize("check", [False, True])
def test_the_account(tmp_path, old, check):
    size = 1024 + 5 * 64 * 80
    told = []
    made = compress(str(old), tmp_path / "b.mrcz", check=check, progress=lambda *args: told.append(args))
    packed = (tmp_path / "b.mrcz").stat().st_size
    assert made.ok and (made.source, made.destination) == (str(old), str(tmp_path / "b.mrcz"))
    assert (made.n_frames, made.plain_bytes, made.source_bytes, made.checked) == (5, size, size, check)
    assert made.stored_bytes == made.destination_bytes == packed < size and 0 < made.seconds < 60
    assert (made.removed, made.lost, made.notes) == (False, (), ())
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.checked = True
    total = (size - 1024) * (2 if check else 1)
    assert told == sorted(told) and told[-1] == (total, total)
    aged(tmp_path / "b.mrcz")
    told.clear()
    back = decompress(tmp_path / "b.mrcz", tmp_path / "c.mrc", check=check, progress=lambda *args: told.append(args))
    assert (back.n_frames, back.plain_bytes, back.stored_bytes, back.checked) == (5, size, packed, check)
    assert (back.source_bytes, back.destination_bytes) == (packed, size)
    assert told == sorted(told) and told[-1] == (total, total)
    assert (tmp_path / "c.mrc").read_bytes() == old.read_bytes()


def test_sizes_are_those_on_the_disk(tmp_path, old):
    wrapped = tmp_path / "a.mrc.gz"
    wrapped.write_bytes(gzip.compress(old.read_bytes()))
    made = compress(wrapped, tmp_path / "b.mrcz")
    assert made.source_bytes == wrapped.stat().st_size and made.plain_bytes == old.stat().st_size
    decompress(tmp_path / "b.mrcz", tmp_path / "c.mrc")
    assert (tmp_path / "c.mrc").read_bytes() == old.read_bytes()


def test_times_and_permissions_go_along(tmp_path, old):
    old.chmod(0o640)
    for action, source, new in ((compress, old, "b.mrcz"), (decompress, tmp_path / "b.mrcz", "c.mrc")):
        action(source, tmp_path / new)
        before, after = source.stat(), (tmp_path / new).stat()
        assert after.st_mtime_ns == before.st_mtime_ns and after.st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("ago_ms", "ticks", "checked"),
    [(1000, 1, False), (0, 10_000_000, True), (5000, 10_000_000, False), (-5000, 1, True)],
)
def test_what_was_written_just_now_is_compared(tmp_path, old, ago_ms, ticks, checked):
    """Written to once more, it might have the same time; on FAT and the like within seconds."""
    then = (time.time_ns() - ago_ms * 10**6) // 10_000_000 * 10_000_000 + (ticks == 1)
    os.utime(old, ns=(then, then))
    assert compress(old, tmp_path / "b.mrcz").checked is checked
    assert compress(old, tmp_path / "c.mrcz", permissive=True).checked is False


FRAMES = np.random.default_rng(5).integers(0, 15, (3, 6, 8))


@pytest.mark.parametrize(
    ("frames", "options"),
    [
        (FRAMES.astype("i1"), {}),
        (FRAMES.astype(">i2"), {"byteorder": ">"}),
        (FRAMES.astype("f2"), {}),
        (FRAMES.astype("c8"), {}),
        (FRAMES.astype("c8"), {"mrc_mode": 3}),
        (np.stack([FRAMES.astype("u1")] * 3, axis=-1), {"mrc_mode": 16}),
        (FRAMES.astype("u1"), {"pack": True}),
        (FRAMES.astype("u1"), {"kind": "volume stack", "mz": 3, "extended_header": ("AGAR", bytes(range(64)))}),
    ],
)
def test_every_mode_comes_back(tmp_path, frames, options):
    path, packed, again = (tmp_path / name for name in ("a.mrc", "a.mrcz", "b.mrc"))
    mrcz.write(path, frames, metadata={"dose": 2} if "extended_header" not in options else None, **options)
    assert compress(path, packed, check=True).checked
    anew = compress(packed, tmp_path / "c.mrcz", codec="lz4", check=True)
    assert decompress(packed, again, check=True).ok and again.read_bytes() == path.read_bytes()
    decompress(tmp_path / "c.mrcz", again, overwrite=True)
    assert again.read_bytes() == path.read_bytes() and anew.ok
    with mrcz.open(tmp_path / "c.mrcz") as reader:
        assert origin(reader).name == "a.mrc" and reader.codec == "lz4"


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_copy_needs_a_name_of_its_own(tmp_path, old):
    os.link(old, tmp_path / "b.mrc")
    os.symlink(old, tmp_path / "c.mrc")
    before = old.read_bytes()
    for same in (old, tmp_path / "b.mrc", tmp_path / "c.mrc"):
        for action in (compress, decompress):
            with pytest.raises(ValueError, match="is the source itself; the copy needs a name of its own"):
                action(old, same, overwrite="any")
    with pytest.raises(ValueError, match="is read, not written"):
        compress(old, tmp_path / "b.mrc.gz")
    with pytest.raises(ValueError, match="is read, not written"):
        compress(old.as_uri(), tmp_path / "b.mrc.gz")
    assert old.read_bytes() == before


def test_bytes_after_the_last_frame(tmp_path, old):
    plain = old.read_bytes()
    old.write_bytes(plain + b"more")
    with pytest.raises(TrailingBytesError, match="after the last frame, which would be lost"):
        compress(old, tmp_path / "b.mrcz")
    assert os.listdir(tmp_path) == ["a.mrc"]
    assert compress(old, tmp_path / "b.mrcz", permissive=True).n_frames == 5
    decompress(tmp_path / "b.mrcz", tmp_path / "c.mrc")
    assert (tmp_path / "c.mrc").read_bytes() == plain


@pytest.mark.parametrize(("nx", "bad"), [(7, True), (8, False)])
def test_half_bytes_that_are_no_pixels(tmp_path, nx, bad):
    """A row of 7 pixels of 4 bits is 4 bytes; the last half is 0, or lost."""
    path = tmp_path / "a.mrc"
    mrcz.write(path, np.full((3, 4, nx), 15, "u1"), pack=True)
    compress(path, tmp_path / "b.mrcz")
    data = bytearray(path.read_bytes())
    data[1024 + 2 * 16 + 3 * 4 + 3] ^= 0x90  # of the last row of the last frame
    path.write_bytes(data)
    if bad:
        with pytest.raises(TrailingBytesError, match="frame 2 has rows that end in half bytes that are not 0"):
            compress(path, tmp_path / "c.mrcz")
        assert compress(path, tmp_path / "c.mrcz", permissive=True).n_frames == 3
    else:
        compress(path, tmp_path / "c.mrcz", check=True)
    decompress(tmp_path / "c.mrcz", tmp_path / "d.mrc")
    assert ((tmp_path / "d.mrc").read_bytes() == bytes(data)) is not bad


def test_a_source_that_is_damaged(tmp_path, old):
    plain = old.read_bytes()
    old.write_bytes(plain[:-100])
    with pytest.raises(mrcz.FormatError):
        compress(old, tmp_path / "b.mrcz")
    with pytest.warns(mrcz.FormatWarning):
        made = compress(old, tmp_path / "b.mrcz", permissive=True)
    assert made.n_frames == 4
    old.write_bytes(plain[:1200])
    with pytest.raises(mrcz.FormatError), pytest.warns(mrcz.FormatWarning):
        compress(old, tmp_path / "c.mrcz", permissive=True)
    old.write_bytes(plain)
    compress(old, tmp_path / "d.mrcz")
    damage(tmp_path / "d.mrcz")
    for action, name in ((decompress, "e.mrc"), (compress, "e.mrcz")):
        with pytest.raises(mrcz.FormatError, match="frame 2"):
            action(tmp_path / "d.mrcz", tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["a.mrc", "b.mrcz", "d.mrcz"]


def damage(path):
    with mrcz.open(path) as reader:
        at = int(reader.index.offsets[2]) + 40
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)


def with_extra(path, **extra):
    """The same compressed file, with other entries in its footer."""
    data = path.read_bytes()
    footer = load_footer(lambda o, n: data[o : o + n], len(data))
    end = footer.trailer.start
    more = {"metadata": footer.metadata(), "source_header": footer.source_header, "extra": {**footer.extra, **extra}}
    path.write_bytes(data[:end] + encode_footer(footer.index, header_bytes=data[:1024], **more))


def test_an_archive_that_does_not_give_back_its_source(tmp_path, old):
    compress(old, tmp_path / "b.mrcz")
    with mrcz.open(tmp_path / "b.mrcz") as reader:
        right = reader.footer.extra["source_xxh64"]
    with_extra(tmp_path / "b.mrcz", source_xxh64=right)
    decompress(tmp_path / "b.mrcz", tmp_path / "c.mrc")
    with_extra(tmp_path / "b.mrcz", source_xxh64=right ^ 1)
    for action, name in ((decompress, "d.mrc"), (compress, "d.mrcz")):
        with pytest.raises(DamagedSourceError, match=r"does not give back a\.mrc, .* their checksums differ"):
            action(tmp_path / "b.mrcz", tmp_path / name)
        action(tmp_path / "b.mrcz", tmp_path / name, permissive=True)
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


# ---- what stands there -----------------------------------------------------------------------------------------------


def test_what_may_be_replaced(tmp_path, old, movie):
    other = tmp_path / "o.mrc"
    mrcz.write(other, movie[:3])
    new = tmp_path / "b.mrcz"
    for content in (b"", other.read_bytes(), b"some text"):
        new.write_bytes(content)
        with pytest.raises(FileExistsError):
            compress(old, new)
        compress(old, new, overwrite=True)
        compress(old, new, overwrite=True)  # of the same source
    with pytest.raises(OtherSourceError):
        compress(other, new, overwrite=True)
    with pytest.raises(OtherSourceError, match="is a compressed file, and may be the only copy"):
        decompress(new, copied(new, tmp_path / "c.mrcz"), overwrite=True)
    plain = tmp_path / "p.mrc"
    for content in (b"", other.read_bytes(), b"some text"):
        plain.write_bytes(content)
        decompress(new, plain, overwrite=True)
        assert plain.read_bytes() == old.read_bytes()
    new.write_bytes(new.read_bytes()[:1500])
    with pytest.raises(OtherSourceError, match="is damaged, so that nobody knows what it was made from"):
        compress(old, new, overwrite=True)
    assert len(new.read_bytes()) == 1500
    assert compress(old, new, overwrite="any").n_frames == 5
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def copied(path, to):
    to.write_bytes(path.read_bytes())
    return to


def test_metadata_that_were_added_stay(tmp_path, old):
    new = tmp_path / "b.mrcz"
    compress(old, new)
    with mrcz.open(new, "a") as writer:
        writer.metadata["remark"] = {"good": True}
    before = new.read_bytes()
    with pytest.raises(OtherSourceError, match="has metadata that were added to it: remark"):
        compress(old, new, overwrite=True)
    assert new.read_bytes() == before
    # A compressed source with the same metadata may replace it; with others it may not.
    source = copied(new, tmp_path / "s.mrcz")
    compress(source, new, overwrite=True, codec="lz4")
    with mrcz.open(source, "a") as writer:
        writer.metadata["remark"] = {"good": False}
    with pytest.raises(OtherSourceError, match="added to it: remark"):
        compress(source, new, overwrite=True)


def test_metadata_a_plain_file_has_no_place_for(tmp_path, old):
    packed, plain = tmp_path / "b.mrcz", tmp_path / "c.mrc"
    compress(old, packed)
    assert decompress(packed, plain).lost == ()
    with mrcz.open(packed, "a") as writer:
        writer.metadata["remark"], writer.metadata["dose"] = "good", 2
    made = decompress(packed, plain, overwrite=True)
    assert made.lost == ("remark", "dose") and made.notes == (
        "a plain file has no place for the metadata remark, dose",
    )
    assert compress(packed, tmp_path / "d.mrcz").lost == ()
    with pytest.raises(
        mrcz.MrczError, match=r"no place for the metadata remark, dose; the original stays beside c\.mrc"
    ):
        decompress(packed, plain, overwrite=True, remove=True)
    assert packed.exists() and plain.read_bytes() == old.read_bytes()


# ---- what goes -------------------------------------------------------------------------------------------------------


def test_an_original_goes_after_the_proof(tmp_path, old):
    before = old.read_bytes()
    made = compress(old, tmp_path / "b.mrcz", remove=True)
    assert made.removed is True and made.checked is True and os.listdir(tmp_path) == ["b.mrcz"]
    made = decompress(tmp_path / "b.mrcz", old, remove=True)
    assert made.removed and os.listdir(tmp_path) == ["a.mrc"] and old.read_bytes() == before


def test_a_link_stays(tmp_path, old):
    link = tmp_path / "l.mrc"
    link.symlink_to(old)
    with pytest.raises(mrcz.MrczError, match=r"is a symbolic link; the original stays beside b\.mrcz"):
        compress(link, tmp_path / "b.mrcz", remove=True)
    assert link.is_symlink() and old.exists() and mrcz.verify(tmp_path / "b.mrcz").ok


def test_what_is_not_known_to_be_sound_stays(tmp_path, movie):
    path, packed = tmp_path / "e.mrc", tmp_path / "e.mrcz"
    mrcz.write(path, movie, extended_header=("AGAR", bytes(range(64))))
    compress(aged(path), packed)
    with pytest.raises(
        mrcz.MrczError, match=r"a permissive copy is compared with no file it was made from\); .* stays"
    ):
        decompress(packed, tmp_path / "c.mrc", permissive=True, remove=True)
    data = bytearray(packed.read_bytes())
    data[1024 + 5] ^= 1
    packed.write_bytes(data)
    with (
        pytest.warns(mrcz.FormatWarning),
        pytest.raises(DamagedSourceError, match="the extended header does not match"),
    ):
        compress(packed, tmp_path / "d.mrcz")
    assert not (tmp_path / "d.mrcz").exists()
    with (
        pytest.warns(mrcz.FormatWarning),
        pytest.raises(mrcz.MrczError, match=r"is not known to be sound \(the extended header .* stays beside d\.mrcz"),
    ):
        compress(packed, tmp_path / "d.mrcz", permissive=True, remove=True)
    assert packed.exists() and path.exists()


def test_a_file_cut_between_two_frames_is_wholly_in_its_copy(tmp_path, old):
    os.truncate(old, old.stat().st_size - 64 * 80)
    before = aged(old).read_bytes()
    with pytest.warns(mrcz.FormatWarning):
        assert compress(old, tmp_path / "b.mrcz", permissive=True, remove=True).removed
    decompress(tmp_path / "b.mrcz", old)
    assert old.read_bytes() == before


@pytest.mark.parametrize("action", ["compress", "decompress"])
@pytest.mark.parametrize("how", ["time", "another", "gone"])
def test_a_source_that_changes_while_it_is_read(tmp_path, old, action, how):
    source, new = old, tmp_path / "b.mrcz"
    if action == "decompress":
        compress(old, tmp_path / "s.mrcz")
        source, new = aged(tmp_path / "s.mrcz"), tmp_path / "b.mrc"
    content = source.read_bytes()

    def change(done, total):
        if how == "time":
            os.utime(source)
        else:
            source.unlink(missing_ok=True)
            if how == "another":
                source.write_bytes(content)

    function = compress if action == "compress" else decompress
    if how == "gone":  # what was read came through a descriptor of the very file
        assert function(source, new, progress=change).ok and mrcz.verify(new).ok
    else:
        with pytest.raises(mrcz.MrczError, match="it changed while it was read, and nothing was written"):
            function(source, new, progress=change)
        assert not new.exists() and source.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("what", ["gone", "replaced"])
def test_an_original_whose_copy_lost_its_name_stays(tmp_path, old, monkeypatch, what):
    new = tmp_path / "b.mrcz"
    publish = NewFile.publish

    def published(self):
        publish(self)
        new.unlink()
        if what == "replaced":
            new.write_bytes(b"another")

    monkeypatch.setattr(NewFile, "publish", published)
    with pytest.raises(
        mrcz.MrczError, match=r"b\.mrcz is no longer the file that was made from it; the original stays"
    ):
        compress(old, new, remove=True)
    assert old.exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [("time", "changed since it was read"), ("gone", None), ("in use", "writing this file; the original stays")],
)
def test_an_original_that_changes_at_the_end(tmp_path, old, monkeypatch, change, says):
    publish = NewFile.publish
    writers = []
    monkeypatch.setattr("mrcz.storage.disk.WAIT", 0.1)

    def published(self):
        publish(self)
        if change == "time":
            os.utime(old)
        elif change == "gone":
            old.unlink()
        else:
            writers.append(mrcz.open(old, "a"))

    monkeypatch.setattr(NewFile, "publish", published)
    if says is None:
        assert compress(old, tmp_path / "b.mrcz", remove=True).removed is False
    else:
        with pytest.raises(mrcz.MrczError, match=says) as info:
            compress(old, tmp_path / "b.mrcz", remove=True)
        assert "b.mrcz" in str(info.value) and old.exists()
    for writer in writers:
        writer.abort()
    assert mrcz.verify(tmp_path / "b.mrcz").ok


def test_an_original_written_to_within_one_tick_stays(tmp_path, movie, monkeypatch):
    """Its size and time are as they were, and so new that this says nothing: it is compared once more."""
    path, publish = tmp_path / "a.mrc", NewFile.publish
    before = aged(path, -5).stat()  # by a clock that is ahead: no time has passed since

    def published(self):
        publish(self)
        with open(path, "rb+") as file:
            file.seek(2000)
            file.write(b"\x55")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    monkeypatch.setattr(NewFile, "publish", published)
    with pytest.raises(mrcz.MrczError, match=r"changed since it was read; it stays, beside b\.mrcz"):
        compress(path, tmp_path / "b.mrcz", remove=True)
    assert path.read_bytes()[2000] == 0x55 and sorted(os.listdir(tmp_path)) == ["a.mrc", "b.mrcz"]


def test_an_original_that_the_disk_does_not_let_go(tmp_path, old, monkeypatch):
    class Stuck(Disk):
        def replace(self, source, target):
            if str(target).endswith(".orig"):
                raise OSError(errno.EIO, "Input/output error")
            super().replace(source, target)

    monkeypatch.setattr(NewFile, "disk", Stuck())
    says = r"could not be removed \(Input/output error\); the original stays beside b\.mrcz"
    with pytest.raises(mrcz.MrczError, match=says):
        compress(old, tmp_path / "b.mrcz", remove=True)
    assert sorted(os.listdir(tmp_path)) == ["a.mrc", "b.mrcz"] and mrcz.verify(tmp_path / "b.mrcz").ok


def test_what_is_not_asked_for_is_not_done(tmp_path, old):
    """Nothing is replaced, removed, packed, or taken for sound."""
    packed, plain = tmp_path / "b.mrcz", tmp_path / "c.mrc"
    compress(old, packed)
    decompress(packed, plain)
    with mrcz.open(packed) as reader:
        assert not reader.header.pixel_format.packed and reader.codec == "zstd"
    for action, source, new in ((compress, old, packed), (decompress, packed, plain)):
        before = new.read_bytes()
        with pytest.raises(FileExistsError):
            action(source, new)
        assert source.exists() and new.read_bytes() == before
        damaged = copied(source, tmp_path / "damaged")
        data = bytearray(damaged.read_bytes())
        damaged.write_bytes(data + b"more" if action is compress else data[:1024] + bytes(20) + data[1044:])
        with pytest.raises(mrcz.FormatError):
            action(damaged, tmp_path / ("new.mrcz" if action is compress else "new.mrc"))
    assert sorted(os.listdir(tmp_path)) == ["a.mrc", "b.mrcz", "c.mrc", "damaged"]


def test_what_is_given_back_is_said(tmp_path, rng):
    path, packed = tmp_path / "a.mrc", tmp_path / "a.mrcz"
    mrcz.write(path, rng.poisson(1, (3, 9, 7)).astype("i1"))
    assert mrcz.compress(path, packed).restores == "file"
    assert mrcz.compress(path, packed, permissive=True, overwrite=True).restores == "file"
    assert mrcz.compress(packed, tmp_path / "b.mrcz").restores == "file"
    assert mrcz.decompress(packed, tmp_path / "back.mrc").restores == "file"
    with open(path, "ab") as file:
        file.write(b"more")
    assert mrcz.compress(path, tmp_path / "c.mrcz", permissive=True).restores == "pixels"
    mrcz.write(tmp_path / "own.mrcz", np.ones((2, 3, 4), "i2"))
    assert mrcz.compress(tmp_path / "own.mrcz", tmp_path / "d.mrcz").restores == "pixels"
    assert mrcz.decompress(tmp_path / "own.mrcz", tmp_path / "own.mrc").restores == "pixels"
