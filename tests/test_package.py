"""The installed package as a whole."""

import tomllib
from pathlib import Path

import mrcz


def test_version_is_the_one_in_pyproject():
    project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
    assert mrcz.__version__ == project["version"]
