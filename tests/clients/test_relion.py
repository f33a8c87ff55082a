"""RELION sees no difference between a micrograph and its compressed and restored copy."""

import re
import shutil
import subprocess

import pytest

from mrcz import cli

PROGRAM = shutil.which("relion_image_handler")


def statistics(path):
    """What ``relion_image_handler --stats`` says about a file, without its name."""
    done = subprocess.run(
        [PROGRAM, "--i", str(path), "--stats"], capture_output=True, text=True, check=True, timeout=60
    )
    (line,) = [line for line in done.stdout.splitlines() if "avg=" in line]
    values = line.rpartition(" : ")[2]
    assert re.search(r"avg= *\S+ stddev= *\S+ minval= *\S+ maxval= *\S+", values)
    return values


@pytest.mark.skipif(PROGRAM is None, reason="relion_image_handler is not installed (Debian: relion)")
def test_statistics_of_a_micrograph(data_dir, tmp_path, capsys):
    original = data_dir / "fei" / "fei-extended.mrc"
    packed, restored = tmp_path / "copy.mrcz", tmp_path / "copy.mrc"
    assert cli.main(["compress", str(original), "-o", str(packed)]) == 0
    assert packed.stat().st_size < 0.75 * original.stat().st_size
    assert cli.main(["decompress", str(packed), "-o", str(restored)]) == 0
    expected = statistics(original)
    assert "3710 x 3838" in expected
    assert statistics(restored) == expected
