"""docs/security.md says nothing that no test shows; and what has its test nowhere else."""

import ast
import os
import re
from pathlib import Path

import numpy as np
import pytest
from malformed.footers import join, split

import mrcz
from mrcz import cli
from mrcz.container.chunks import xxh64
from mrcz.storage.whole import NewFile

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| what |")]


def test_every_row_has_its_test():
    assert len(ROWS) > 30
    for row in ROWS:
        found = re.fullmatch(r"\| .+ \| `(tests/[\w/]+\.py)::(test_\w+)` \|", row)
        assert found, f"no test is named in: {row}"
        tree = ast.parse((ROOT / found[1]).read_text())
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert found[2] in names, f"{found[2]} is not in {found[1]}"


def test_limits_are_as_the_page_says():
    from mrcz.storage.http import Limits

    for name, value in re.findall(r"`(connect_timeout|read_timeout|total_timeout|least_rate)` (\d+)", PAGE):
        assert getattr(Limits(), name) == int(value)
    assert Limits().redirects == 5 and Limits().whole_bytes == 256 << 20


NAMES = [
    "../../x.st",
    "/etc/passwd",
    "..",
    "a/b.rec",
    "x.st\0.mrc",
    "x.\x1b[31m",
    "x" * 5000 + ".st",
    "",
    ".mrc",
    "-rf.st",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_name_leads_nowhere(tmp_path, name, capsys):
    folder = tmp_path / "deep" / "er"
    folder.mkdir(parents=True)
    mrcz.write(
        folder / "a.mrcz",
        np.zeros((2, 8, 8), "i2"),
        source_name=name,
        source_header=mrcz.Header.build(
            (2, 8, 8), mrcz.container.modes.format_for(np.dtype("i2")), stats=None
        ).tobytes(),
    )
    before = {path for path in tmp_path.rglob("*")}
    cli.main(["decompress", str(folder / "a.mrcz")])
    capsys.readouterr()
    new = {path for path in tmp_path.rglob("*")} - before
    assert len(new) <= 1 and all(path.parent == folder and path.name.startswith("a.") for path in new)


def test_checksums_are_no_signature(tmp_path, rng):
    """Who takes the trouble can write other pixels with checksums that fit; nobody can notice."""
    path = tmp_path / "a.mrcz"
    noise = rng.integers(0, 65535, (1, 16, 16)).astype("u2")  # which is stored as it is
    mrcz.write(path, noise)
    data = bytearray(path.read_bytes())
    at = data.index(noise.tobytes()[:64])
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(mrcz.FormatError, match="checksum"):
        mrcz.read(path)
    forged = split(bytes(data))
    with mrcz.open(path) as reader:
        chunk = bytes(data[int(reader.index.offsets[0]) :][: int(reader.index.sizes[0])])
    forged.body["xxh64"] = xxh64(chunk).to_bytes(8, "little")
    forged.body.pop("stats")
    path.write_bytes(join(forged))
    assert int(mrcz.read(path)[0, 0, 0]) ^ int(noise[0, 0, 0]) == 1


def test_a_plain_file_has_no_checksums(tmp_path, rng):
    path = tmp_path / "a.mrc"
    stack = rng.integers(0, 1000, (2, 8, 8)).astype("u2")
    mrcz.write(path, stack)
    data = bytearray(path.read_bytes())
    data[1024] ^= 1
    path.write_bytes(data)
    found = mrcz.verify(path)
    assert found.ok and not found.checksums and mrcz.read(path)[0, 0, 0] != stack[0, 0, 0]


def test_a_temporary_name_is_never_somebody_elses(tmp_path, monkeypatch):
    """Neither one of those that all makers of a file derive from its name, nor one by chance."""
    monkeypatch.setattr("mrcz.storage.whole.secrets.token_hex", lambda n: "00" * n)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / ".a.mrc.00000000.part").symlink_to(victim)
    taken = 0
    while True:
        try:
            new = NewFile(tmp_path / "a.mrc")
        except FileExistsError:
            break
        derived = new.temporary
        new.abort()
        derived.symlink_to(victim)
        taken += 1
    assert taken >= 1
    with pytest.raises(FileExistsError):
        NewFile(tmp_path / "a.mrc")
    with pytest.raises(FileExistsError):
        mrcz.write(tmp_path / "a.mrc", np.zeros((2, 8, 8), "i2"))
    assert victim.read_bytes() == b"precious" and not (tmp_path / "a.mrc").exists()
    assert (tmp_path / ".a.mrc.00000000.part").is_symlink()


def test_names_that_look_like_options(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("-r.mrc", "--force.mrc", "a\x1b[31mb\n.mrc"):
        mrcz.write(tmp_path / name, np.zeros((2, 8, 8), "i2"))
        for given in (["--", name], [f"./{name}"]):
            assert cli.main(["info", "--no-pixels", *given]) == 0
            out, err = capsys.readouterr()
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f]", out + err)
    assert sorted(os.listdir(tmp_path)) == sorted(["-r.mrc", "--force.mrc", "a\x1b[31mb\n.mrc"])
