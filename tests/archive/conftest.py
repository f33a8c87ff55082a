import made_archive
import pytest
import s3_servers
import watched


@pytest.fixture
def session(tmp_path):
    for name in ["a.mrc", "b.mrcs", "sub/c.map", "sub/d.mrc.gz", "sub/notes.txt", "sub/.hidden.mrc", "old.mrcz"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


@pytest.fixture
def mixed(tmp_path, rng):
    """A small session of everything: counts, floats of counts and of nothing, TIFF, what nobody knows, odd names."""
    import mrcfile
    import numpy as np

    import mrcz

    top = tmp_path / "source"
    for folder in ("s1/movies", "s2", "empty/deep"):
        (top / folder).mkdir(parents=True)
    counts = rng.poisson(1.0, (6, 48, 40))
    gain = (1 + 0.05 * rng.standard_normal((48, 40))).astype(np.float32)
    mrcfile.write(top / "s1/movies/counts.mrc", counts.astype(np.int8))
    mrcfile.write(top / "s1/movies/shorts.mrcs", counts.astype(np.int16) * 100)
    mrcfile.write(top / "s1/movies/floats.mrc", np.repeat(counts, 8, axis=0).astype(np.float32) * gain)
    mrcfile.write(top / "s2/noise.mrc", rng.standard_normal((2, 48, 40)).astype(np.float32))
    mrcz.write(top / "s2/packed.mrcz", counts.astype(np.uint8))
    mrcz.write(top / "s2/packed.mrc", counts.astype(np.uint8) + 1)
    (top / "s2/broken.mrc").write_bytes((top / "s2/noise.mrc").read_bytes()[:5000])
    (top / "s2/none.mrc").write_bytes(b"")
    (top / "s1/100% of é, b c.txt").write_text("notes")
    (top / "s1/.hidden").write_text("too")
    (top / "loose.log").write_text("log\n" * 100)
    (top / "link").symlink_to("s1/movies/counts.mrc")
    (top / "s1/movies/again.mrc").hardlink_to(top / "s1/movies/counts.mrc")
    return top


@pytest.fixture
def made(tmp_path, rng):
    """An archive of two sessions with a file of each form (`made_archive.mixed`), and its source."""
    archive = made_archive.mixed(tmp_path, rng)
    yield archive
    archive.close()


@pytest.fixture(scope="session", params=s3_servers.SERVERS)
def s3(request, tmp_path_factory):
    """Storage options of an S3 server."""
    if reason := s3_servers.missing(request.param):
        pytest.skip(reason)
    with s3_servers.server(request.param, tmp_path_factory.mktemp(request.param)) as options:
        yield options


@pytest.fixture
def bucket(s3, request):
    """A prefix of its own for each test."""
    from mrcz.archive.objects import ObjectStore

    return ObjectStore(f"s3://bucket/{request.node.name.partition('[')[0]}", s3, pauses=(0.05, 0.05))


@pytest.fixture(params=["memory", "file"])
def simple(request, tmp_path):
    """Stores that need no server."""
    fsspec = pytest.importorskip("fsspec")
    from mrcz.archive.objects import ObjectStore

    if request.param == "file":
        return ObjectStore(f"file://{tmp_path}/there")
    fsspec.filesystem("memory").store.clear()
    return ObjectStore("memory://archive/one")


@pytest.fixture
def clock():
    return watched.Clock()


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("mrcz.archive.objects._PART", 5 << 20)
