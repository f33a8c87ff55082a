"""The README does what it says: its Python runs, its links lead somewhere, its commands exist."""

import doctest
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mrcz import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_python_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert result.failed == 0 and result.attempted >= 6


# ---- listings ----------------------------------------------------------------------------------------------------
#
# A block of commands ($ …) and what they print, below the comment "listing", is run, and has to print that again; times
# and rates apart, which are those of whoever measured them.

LISTINGS = [
    (page.name, text)
    for page in PAGES
    for text in re.findall(r"<!-- listing -->\n```\n(.*?)```", page.read_text(), re.DOTALL)
]
# What the files of the listings are in the collection of real files.
REAL_FILES = {
    "session/emd_3001.map.gz": "mrcfile/emd_3001.map.gz",
    "session/empiar_10076_7.mrc": "cryodrgn/empiar_10076_7.mrc",
    "session/hand.5.mrcs": "cryodrgn/hand.5.mrcs",
    "session/relion31.mrcs": "cryodrgn/relion31.mrcs",
    "micrograph.mrc": "fei/fei-extended.mrc",
}


def masked(text):
    """Without seconds, rates and the widths of columns of them; sizes and ratios stay."""
    text = re.sub(r"\d[\d.]* (?:[kMGT]?B/s|m?s)\b", "TIME", text)
    return [re.sub(r" +", " ", line).rstrip() for line in text.splitlines()]


@pytest.mark.skipif(os.name == "nt", reason="listings are of a Unix shell")
@pytest.mark.parametrize("page, text", LISTINGS, ids=[text.split("\n")[0][2:] for _, text in LISTINGS])
def test_listings_are_what_the_commands_print(tmp_path, request, page, text):
    if any(word in text for word in ("session/", "micrograph")):
        collection = request.getfixturevalue("data_dir")
        for name, source in REAL_FILES.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(collection / source, tmp_path / name)
            (tmp_path / name).chmod(0o644)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "mrcz").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mrcz "$@"\n')
    (programs / "mrcz").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "120"}

    def output(command):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, text=True, **pipes)
        assert done.returncode == 0, done.stdout
        return done.stdout

    if "micrograph.mrcz" in text:
        output("mrcz compress micrograph.mrc")
    shown, printed = masked(text), []
    for line in text.splitlines():
        if line.startswith("$ "):
            printed += [line, *output(line[2:]).splitlines()]
    assert masked("\n".join(printed)) == shown, "\n".join([page, *printed])


def test_listings_are_marked():
    """Every block of the README that shows commands with what they print is one that is run."""
    blocks = re.findall(r"(<!-- listing -->\n)?```\n(\$ .*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 5 and all(mark for mark, _ in blocks)


def test_the_list_of_commands():
    page = (ROOT / "docs" / "cli.md").read_text()
    listed = re.search(r"<!-- commands -->\n```\n(.*?)```", page, re.DOTALL)[1]
    helps = {name: importlib.import_module(f"mrcz.cli.{name}").HELP for name in cli.COMMANDS}
    width = max(map(len, helps)) + 3
    assert listed.splitlines() == [f"mrcz {name:{width}}{text}" for name, text in helps.items()]


def test_links():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_exist():
    text = "".join(page.read_text() for page in [ROOT / "README.md", ROOT / "docs" / "cli.md"])
    used = set(re.findall(r"^(?:\$ )?mrcz ([a-z]+)", text, re.MULTILINE))
    assert used <= set(cli.COMMANDS) and used >= {"compress", "decompress", "info", "verify"}
    for command in cli.COMMANDS:
        assert f"mrcz {command}" in text, f"docs/cli.md says nothing about {command}"
