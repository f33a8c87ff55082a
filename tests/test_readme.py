"""The README does what it says: its Python runs, its links lead somewhere, its commands exist."""

import doctest
import re
from pathlib import Path

from mrcz import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_python_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert result.failed == 0 and result.attempted >= 6


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
