"""What commands show of files: info, verify; c-mrcz's form, and the demo."""

import numpy as np
import pytest
from cli.running import movie, names, records, run

import mrcz

__all__ = ["movie"]  # a fixture


# --- info ---------------------------------------------------------------------------------------------------------


def test_info(capsys, movie, tmp_path):
    code, out, err = run(capsys, "info", movie)
    assert code == 0 and err == ""
    assert "stack" in out and "7 frames of 61 x 50" in out and "1.05 Å" in out and "unsigned 8-bit" in out
    run(capsys, "compress", movie)
    code, out, _ = run(capsys, "info", tmp_path / "movie.mrcz")
    assert code == 0 and "zstd" in out and "smaller" in out and "bits a pixel" in out and "made from   movie.mrc" in out


def test_info_json(capsys, movie, tmp_path):
    run(capsys, "compress", movie)
    code, out, _ = run(capsys, "info", "--json", movie, tmp_path / "movie.mrcz")
    plain, packed = records(out)
    assert code == 0
    assert plain["shape"] == packed["shape"] == [7, 50, 61]
    assert plain["codec"] == "none" and plain["ratio"] is None
    assert packed["codec"] == "zstd" and packed["ratio"] > 1
    assert plain["entropy_bits"] == packed["entropy_bits"] == pytest.approx(1.7, abs=0.2)
    assert 0 < packed["entropy_fraction"] < 1.1
    assert packed["plain_bytes"] == movie.stat().st_size == plain["file_bytes"]


def test_info_of_every_mode(capsys, tmp_path, rng):
    counts = rng.poisson(3, (2, 6, 8)).clip(0, 15).astype(np.uint8)
    images = {
        0: counts,
        1: counts.astype(np.int16),
        2: counts.astype(np.float32),
        3: counts.astype(np.complex64),
        4: counts + 1j * counts.astype(np.complex64),
        6: counts.astype(np.uint16),
        7: counts.astype(np.int32),
        8: counts.astype(np.uint32),
        12: counts.astype(np.float16),
        16: np.stack([counts] * 3, axis=-1),
        101: counts,
    }
    for mode, pixels in images.items():
        for suffix in (".mrc", ".mrcz"):
            path = tmp_path / f"{mode}{suffix}"
            mrcz.write(path, pixels, mrc_mode=mode if mode in (3, 16) else None, pack=mode == 101)
            code, out, err = run(capsys, "info", path)
            assert code == 0 and err == "" and f"(mode {mode}, " in out and "2 frames of 8 x 6" in out


def test_info_of_an_odd_file(capsys, movie, tmp_path):
    whole = bytearray(movie.read_bytes())
    whole[8:12] = (32766).to_bytes(4, "little")
    movie.write_bytes(whole)
    code, out, _ = run(capsys, "info", movie)
    assert code == 0 and "7 frames" in out and "32766" in out
    code, _, err = run(capsys, "info", "--strict", movie)
    assert code == 3 and "nz" in err


# --- verify -------------------------------------------------------------------------------------------------------


def test_verify(capsys, movie, tmp_path):
    run(capsys, "compress", movie)
    packed = tmp_path / "movie.mrcz"
    for arguments in ([packed], [movie], ["--fast", packed], ["--each", movie, packed], ["-r", tmp_path]):
        code, out, _ = run(capsys, "verify", *arguments)
        assert code == 0 and "ok" in out
    code, out, _ = run(capsys, "verify", movie, packed)
    assert code == 0 and "same" in out


@pytest.mark.parametrize("fast", [True, False])
def test_verify_finds_damage(capsys, movie, tmp_path, fast):
    run(capsys, "compress", movie)
    packed = tmp_path / "movie.mrcz"
    with mrcz.open(packed) as reader:
        offset = int(reader.index.offsets[3]) + 40
    whole = bytearray(packed.read_bytes())
    whole[offset] ^= 8
    packed.write_bytes(whole)
    code, out, err = run(capsys, "verify", packed, *(["--fast"] if fast else []))
    assert code == 3 and "frame 3" in out + err
    code, out, _ = run(capsys, "verify", "--json", packed, *(["--fast"] if fast else []))
    assert code == 3 and records(out)[0]["faults"]


def test_verify_compares(capsys, movie, tmp_path):
    changed = mrcz.read(movie)
    changed[4, 20, 30] ^= 1
    other = tmp_path / "other.mrcz"
    mrcz.write(other, changed, pixel_size=1.05, kind="stack")
    code, out, err = run(capsys, "verify", movie, other)
    assert code == 3 and "1 of 21350 pixels differ" in out + err and "(4, 20, 30)" in out + err
    code, out, _ = run(capsys, "verify", "--json", movie, other)
    found = records(out)[-1]
    assert code == 3 and found["pixels"] == 1 and found["first"] == [4, 20, 30]


# --- c-mrcz's form ------------------------------------------------------------------------------------------------


def test_form_of_cmrcz(capsys, movie, tmp_path):
    packed, plain = tmp_path / "out.mrcz", tmp_path / "back.mrc"
    arguments = ["-c", "lz4hc", "-B", 16384, "-l", 3, "-f", 2, "-n", 1]
    assert run(capsys, "-i", movie, "-o", packed, *arguments)[0] == 0
    with mrcz.open(packed) as reader:
        assert "lz4" in str(reader.codec)
    assert run(capsys, "-i", packed, "-o", plain)[0] == 0
    assert plain.read_bytes() == movie.read_bytes()
    assert run(capsys, "-i", movie, "-o", packed)[0] == 1
    assert run(capsys, "-i", movie, "-o", packed, "--force")[0] == 0
    with mrcz.open(packed) as reader:
        assert "zstd" in str(reader.codec)
    assert run(capsys, "-i", packed, "-o", tmp_path / "none.mrcz", "-c", "none")[0] == 0
    assert (tmp_path / "none.mrcz").read_bytes() == movie.read_bytes()


# --- demo ---------------------------------------------------------------------------------------------------------


def test_demo(capsys, tmp_path):
    code, out, err = run(capsys, "demo", "--frames", 6, "--size", 128, "--keep", tmp_path / "kept")
    assert code == 0 and "identical" in out and "CHANGED" not in out + err
    assert "movie.mrc" in names(tmp_path / "kept")
    code, out, _ = run(capsys, "demo", "--frames", 3, "--size", 64, "--json")
    rows = records(out)
    assert code == 0 and len(rows) >= 4 and all(row["identical"] and row["verified"] for row in rows)
