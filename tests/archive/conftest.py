import pytest
import s3_servers


@pytest.fixture
def session(tmp_path):
    for name in ["a.mrc", "b.mrcs", "sub/c.map", "sub/d.mrc.gz", "sub/notes.txt", "sub/.hidden.mrc", "old.mrcz"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


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
def small_parts(monkeypatch):
    monkeypatch.setattr("mrcz.archive.objects._PART", 5 << 20)
