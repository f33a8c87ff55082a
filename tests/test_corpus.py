"""The main job on every real file: compressed, verified and restored to identical bytes, or refused with a reason.

`REFUSED` is the list of what is refused and why; a file that is in no list has to come back as it was.
"""

import fnmatch
import json
import os
from pathlib import Path

import numpy as np
import pytest

import mrcz
from mrcz import cli
from mrcz.storage.wrapped import is_wrapped, open_plain

COLLECTION = Path(os.environ.get("MRCZ_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
ROOT = COLLECTION if COLLECTION.is_dir() else Path(__file__).with_name("data")  # a part of it comes with the tests
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file())

# Pattern -> part of the message; the first that fits counts.
REFUSED = {
    # other formats
    "*.seq.Missing_Frame_Info.txt": "",  # one is text of 34 bytes, one is binary
    "*.md": "text file",
    "*.txt": "text file",
    "*.csv": "text file",
    "*.xml": "text file",
    "*.star": "text file",
    "*.mdoc": "text file",
    "*.hdr": "text file",
    "rsciio-dm/test_fft_packed_complex8.dm4": "half of a Fourier transform",
    "pytom/int2.em": "not an MRC file",
    "pytom/human_ribo_21A.em": "field mode is 32",
    "*.seq.metadata": "field mode is 224",
    "leginon/leginoncatcheck.mrc": "text file",
    # headers whose pixels were removed
    "exiftool/MRC.mrc": "field nz is 2, expected at most 0",
    "pytom/header_only.mrc": "field nz is 32, expected at most 0",
    "sfftk/test_data_corrupt_header.map": "field nz is 71, expected at most 0",
}

# Files of other formats: compressed with the same pixels, and never the very file again.
FOREIGN = ("*.mib", "*.tif", "*.dm3", "*.dm4", "*.seq")

# Refused because NZ claims 32766 frames; with --permissive the frames that are there, and the same bytes back.
OVERSTATED = {
    "rsciio-de-celeritas/128x256_PRebuffer128/test.seq.dark.mrc": 1,
    "rsciio-de-celeritas/128x256_PRebuffer128/test.seq.gain.mrc": 1,
    "rsciio-de-celeritas/256x256_Prebuffer1/Movie_00784.seq.gain.mrc": 1,
    "rsciio-de-celeritas/256x256_Prebuffer1/Movie_00785.seq.dark.mrc": 1,
    "rsciio-de-celeritas/data/test.seq.dark.mrc": 8,
    "rsciio-de-celeritas/data/test.seq.gain.mrc": 8,
}


def reason(name):
    for pattern, text in REFUSED.items():
        if fnmatch.fnmatch(name, pattern):
            return text
    return f"field nz is 32766, expected at most {OVERSTATED[name]}" if name in OVERSTATED else None


def is_foreign(name):
    return any(fnmatch.fnmatch(name, pattern) for pattern in FOREIGN)


PLAIN = [name for name in FILES if reason(name) is None and not name.endswith(".mrcz") and not is_foreign(name)]


def there_and_back(source, folder, *options):
    """compress --check, verify, decompress; the restored file."""
    packed, restored = folder / "packed.mrcz", folder / "restored.mrc"
    assert cli.main(["compress", "--check", *options, str(source), "-o", str(packed)]) == 0
    assert cli.main(["verify", str(packed)]) == 0
    assert cli.main(["decompress", str(packed), "-o", str(restored)]) == 0
    return restored


def content(path):
    with open_plain(path) as file:
        return file.read()


@pytest.mark.skipif(ROOT != COLLECTION, reason=f"no real files at {COLLECTION}; set MRCZ_TEST_DATA")
def test_lists_are_about_files_that_exist():
    for pattern in [*REFUSED, *OVERSTATED, *FOREIGN]:
        assert any(fnmatch.fnmatch(name, pattern) for name in FILES), pattern
    assert len(PLAIN) > 60


def test_some_files_are_there():
    assert len(PLAIN) > 18


@pytest.mark.parametrize("name", PLAIN)
def test_comes_back_identical(name, tmp_path, capsys):
    assert content(there_and_back(ROOT / name, tmp_path)) == content(ROOT / name)


@pytest.mark.parametrize("name", [name for name in FILES if reason(name) is not None])
def test_is_refused(name, tmp_path, capsys):
    code = cli.main(["compress", "--json", str(ROOT / name), "-o", str(tmp_path / "packed.mrcz")])
    result, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert code == 3 == summary["exit_code"] and result["damaged"]
    assert reason(name) in result["error"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in FILES if is_foreign(name) and reason(name) is None])
@pytest.mark.filterwarnings("ignore::mrcz.FormatWarning")
def test_other_formats_keep_their_pixels(name, tmp_path, capsys):
    with mrcz.open(ROOT / name) as reader:
        pixels, format = reader.read(), reader.format
    assert format not in ("mrc", "mrcz")
    options = ["--dtype", "float32"] if pixels.dtype == np.float64 else []
    assert cli.main(["compress", *options, str(ROOT / name), "-o", str(tmp_path / "packed.mrcz")]) == 0
    found = mrcz.read(tmp_path / "packed.mrcz")
    np.testing.assert_array_equal(found, pixels.astype(found.dtype))


@pytest.mark.parametrize("name", [name for name in FILES if name in OVERSTATED])
@pytest.mark.filterwarnings("ignore::mrcz.FormatWarning")
def test_overstated_files_come_back_when_asked(name, tmp_path, capsys):
    restored = there_and_back(ROOT / name, tmp_path, "--permissive")
    assert content(restored) == content(ROOT / name)
    with mrcz.open(tmp_path / "packed.mrcz") as reader:
        assert len(reader) == OVERSTATED[name]


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".mrcz")])
def test_files_of_other_writers(name, tmp_path, capsys):
    """Made plain, compressed by us, made plain again: pixels of the first file, bytes of the first plain one."""
    plain = tmp_path / "plain.mrc"
    assert cli.main(["decompress", "--check", str(ROOT / name), "-o", str(plain)]) == 0
    assert np.array_equal(mrcz.read(plain), mrcz.read(ROOT / name))
    assert there_and_back(plain, tmp_path).read_bytes() == plain.read_bytes()


def test_wrapped_files_are_among_them():
    wrapped = [name for name in PLAIN if is_wrapped(ROOT / name)]
    assert wrapped == [name for name in PLAIN if Path(name).suffix in (".gz", ".bz2", ".xz", ".zst")]
    assert len(wrapped) >= (7 if ROOT == COLLECTION else 2) and len(wrapped) < len(PLAIN)
