"""What the command line makes of the library's words: its own options, in place of keywords."""

import re
import shlex

import numpy as np
import pytest

import mrcz
from mrcz import cli
from mrcz.cli._advice import as_options
from mrcz.container.header.layout import HEADER_DTYPE


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("`edit_header(path, pixel_size=...)` sets both", "`mrcz header --set pixel-size=` sets both"),
        ("a: `edit_header(path, cellb=(90, 90, 90))` b", "a: `mrcz header --set cellb=90,90,90` b"),
        ("`edit_header(path, mapc=1, mapr=2)`", "`mrcz header --set mapc=1 --set mapr=2`"),
        ("`edit_header(path, kind='volume stack', mz=...)`", "`mrcz header --set 'kind=volume stack' --set mz=`"),
        (r"`edit_header(path, machst=b'DD\x00\x00')`", "`mrcz header --set machst=44440000`"),
        (
            "`edit_header(path, map='M')`, `edit_header(path, nz=1)`",
            "`mrcz header --set map=M`, `mrcz header --set nz=1`",
        ),
        ("nothing of the kind, `mrcz recover`", "nothing of the kind, `mrcz recover`"),
    ],
)
def test_keywords_become_options(said, shown):
    assert as_options(said) == shown


# What is wrong with a file, where the advice says what is right.
WRONG = {
    "map": b"PAM ",
    "machst": (0x11, 0x11, 0, 0),
    "nversion": 0,
    "cellb": (90, 90, 200),
    "mapc": 2,
    "nlabl": 3,
    "dmin": -99,
    "ispg": 0,
}


@pytest.mark.parametrize("field", sorted(WRONG))
@pytest.mark.parametrize("how", ["library", "command"])
def test_what_is_advised_mends_it(tmp_path, capsys, rng, field, how):
    """The call, literally, or the command."""
    path = tmp_path / "a b.mrc"
    mrcz.write(path, rng.normal(size=(4, 6, 8)).astype("f4"), kind="volume", pixel_size=1.5)
    raw = bytearray(path.read_bytes())
    np.frombuffer(raw, HEADER_DTYPE, 1)[field] = WRONG[field]
    path.write_bytes(raw)
    if how == "library":
        (problem,) = mrcz.validate(path).problems
        assert not re.search(r"(^|\s)-{1,2}[a-z]", problem), problem
        advice = re.search("`(edit_header.*)`", problem)[1]
        eval(advice, {"edit_header": mrcz.edit_header, "path": path})
    else:
        assert cli.main(["validate", "-q", str(path)]) == 3
        words = shlex.split(re.search("`(mrcz header .*)`", capsys.readouterr().out)[1])
        assert cli.main([*words[1:], str(path)]) == 0
    assert mrcz.validate(path).ok


def test_a_directory_is_one_to_the_library_and_the_command_says_what_takes_it(tmp_path, capsys):
    from mrcz.archive.plan import plan
    from mrcz.archive.walk import DIRECTORY, expand

    (refused,) = plan("compress", [tmp_path]).refused
    assert (refused.error, refused.reason) == (DIRECTORY, "directory") == ("is a directory", "directory")
    assert list(expand([tmp_path])) == [(str(tmp_path), tmp_path.name, DIRECTORY)]
    for command in ("compress", "info", "verify", "validate", "header"):
        assert cli.main([command, str(tmp_path)]) == 1
        assert capsys.readouterr().err == f"mrcz: {tmp_path}: is a directory; -r takes the files in it\n"
