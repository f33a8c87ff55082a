"""Copies: from URLs too, with a codec as a value, and with what the footer says of the source."""

import os

import numpy as np
import pytest
from servers import RangeServer

import mrcz
from mrcz.check.origin import file_name, origin
from mrcz.convert.copy import compress, decompress


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
