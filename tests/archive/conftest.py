import pytest


@pytest.fixture
def session(tmp_path):
    for name in ["a.mrc", "b.mrcs", "sub/c.map", "sub/d.mrc.gz", "sub/notes.txt", "sub/.hidden.mrc", "old.mrcz"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path
