"""Help at any width, words that were nearly right, completions by the shells themselves, the manual page."""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mrcz import cli
from mrcz.cli import _build, _help, _man, _shells

PARSER = cli.build_parser()[0]
ALL = list(_shells.commands_of(PARSER))


def run(capsys, *args):
    code = cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


# --- help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("command", ALL, ids=lambda c: " ".join(c.words) or "mrcz")
def test_help_fits(capsys, monkeypatch, command, width):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, err = run(capsys, *command.words, "--help")
    assert code == 0 and err == ""
    for line in out.splitlines():
        if len(line) <= max(width, 40):
            continue
        # What cannot be broken: one option with its values, one word.
        one = re.fullmatch(r"(usage: mrcz.* |\s*)\[[^\[\]]+\]", line) or re.search(r"-\S* \{\S+\}$", line)
        assert width <= 60 and (one or " " not in line.strip()), line
    if width == 200:
        assert max(map(len, out.splitlines())) <= 100  # nobody reads longer lines


def test_help_loses_nothing(capsys, monkeypatch):
    texts = set()
    for width in (40, 80, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        out = run(capsys, "compress", "--help")[1]
        texts.add(re.sub(r"\s", "", out[out.index("Compress MRC") :]))
    assert len(texts) == 1


def test_examples_stay_examples():
    assert _help.blocks("One\nline.\n\nmrcz a b   does\n  mrcz c     more  so\n\nmrcz is\na word.") == [
        "One line.",
        [("mrcz a b", "does"), ("mrcz c", "more  so")],
        "mrcz is a word.",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["comprss", "a"], "did you mean compress?"),
        (["Verify", "a"], "did you mean verify?"),
        (["zzz"], "there is compress, decompress, info"),
        (["compress", "a", "--remov"], "unknown argument --remov; did you mean --remove?"),
        (["compress", "a", "--skip-exsting"], "did you mean --skip-existing?"),
        (["compress", "a", "--lebel=3"], "did you mean --level?"),
        (["compress", "a", "--zzzz"], "unknown argument --zzzz; mrcz compress --help"),
        (["compress", "a", "--codec", "zst"], "no 'zst' here; did you mean zstd?"),
        (["compress", "a", "--filter", "q"], "there is auto, none, shuffle, bitshuffle"),
        (["gain", "orientt", "a", "b"], "did you mean orient?"),
        (["gain", "make", "a", "-o", "b", "--drak", "x"], "did you mean --dark?"),
    ],
)
def test_did_you_mean(capsys, words, said):
    code, out, err = run(capsys, *words)
    assert code == 2 and out == "" and err.count("\n") == 1 and said in err


def test_no_option_is_taken_for_another(capsys, tmp_path):
    """``--rem`` was ``--remove`` once, and would be another when there is one more."""
    code, _, err = run(capsys, "compress", "--rem", tmp_path / "a.mrc")
    assert code == 2 and "did you mean --remove?" in err


# --- completions --------------------------------------------------------------------------------------------------


QUESTIONS = {
    "mrcz comp": {"compress", "completion"},
    "mrcz compress --re": {"--recover-integers", "--recursive", "--remove", "--replace-any"},
    "mrcz compress --codec z": {"zstd", "zlib"},
    "mrcz compress -q --profile s": {"small"},
    "mrcz gain ": {"make", "orient", "gamma", "convert", "session"},
    "mrcz gain make --f": {"--force"},
    "mrcz completion ": {"bash", "zsh", "fish"},
    "mrcz info a": {"a movie.mrc"},
    "mrcz info -r su": {"sub"},
    "mrcz clean ": {"sub"},
    "mrcz compress -l ": set(),
    "mrcz man ": set(),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "a movie.mrc").write_bytes(b"")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def script(shell, folder):
    # Beside the folder, so that it is not among the files that are completed.
    path = Path(f"{folder}.{shell}")
    path.write_text(_shells.completion(shell, PARSER), "utf-8")
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash(here):
    asking = (
        'source %s; ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mrcz; printf \'%%s\\n\' "${COMPREPLY[@]}"; }; '
    )
    for line, expected in QUESTIONS.items():
        words = " ".join(f"'{word}'" for word in line.split(" "))
        command = asking % script("bash", here) + "ask " + words
        done = subprocess.run(["bash", "--norc", "-c", command], capture_output=True, text=True)
        assert done.stderr == "" and set(done.stdout.splitlines()) - {""} == expected, line
    done = subprocess.run(
        ["bash", "-c", asking % script("bash", here) + "ask mrcz compress --filter = b"], capture_output=True, text=True
    )
    assert done.stdout.split() == ["bitshuffle"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish(here):
    for line, expected in QUESTIONS.items():
        if line == "mrcz compress -l ":
            continue  # fish offers files where it knows nothing
        command = f"source {script('fish', here)}; complete -C '{line}'"
        environment = {**os.environ, "HOME": f"{here}.home", "XDG_CONFIG_HOME": f"{here}.home"}
        done = subprocess.run(["fish", "-c", command], capture_output=True, text=True, env=environment)
        found = {row.split("\t")[0].rstrip("/") for row in done.stdout.splitlines()}
        assert found == expected, (line, done.stderr)


def test_fish_and_zsh_quote_what_is_said():
    parser = argparse.ArgumentParser()
    parser.add_argument("--odd", metavar="FILE", help="it's a \\ [thing]: 100 %% of $HOME")
    for shell in ("bash", "zsh", "fish"):
        text = _shells.completion(shell, parser)
        if shutil.which(shell):
            done = subprocess.run([shell, "-n"], input=text, capture_output=True, text=True)
            assert done.returncode == 0 and done.stderr == ""
        if shell != "bash":
            assert "100 %" in text and "%%" not in text


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh(here):
    """Each function asks zsh's own `_arguments` for what it knows: options with their explanations, then operands."""
    text = _shells.completion("zsh", PARSER)
    done = subprocess.run(["zsh", "-f", "-n"], input=text, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    record = (
        "compdef() { print -r -- $1 $2 }; _arguments() { print -rl -- $@ }; _describe() { print -rl -- ${(P)2} }; "
        f"source {script('zsh', here)}; "
        "for name in ${(k)functions[(I)_mrcz*]}; do print -r -- '==' $name; $name; done"
    )
    done = subprocess.run(["zsh", "-f", "-c", record], capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.startswith("_mrcz mrcz\n")
    by_name = dict(part.split("\n", 1) for part in done.stdout.split("== ")[1:])
    for command in ALL:
        said = by_name["_mrcz" + "".join(f"_{word}" for word in command.words)]
        for option in command.options:
            assert all(string in said for string in option.option_strings)


def test_completion_command(capsys):
    for shell in ("bash", "zsh", "fish"):
        code, out, err = run(capsys, "completion", shell)
        assert code == 0 and err == "" and out == _shells.completion(shell, PARSER)


# --- the manual page ----------------------------------------------------------------------------------------------


def test_the_page_has_every_command_and_option(capsys):
    code, out, _ = run(capsys, "man")
    assert code == 0
    plain = re.sub(r"\\f[BIR]|\\&", "", out).replace("\\-", "-").replace("\\e", "\\")
    for command in ALL:
        name = " ".join(command.words)
        assert not name or f"mrcz {name}".upper() in plain.upper()
        for option in command.options:
            if command.words and "--help" not in option.option_strings:
                assert ", ".join(option.option_strings) in plain
                assert not option.help or re.sub(r"\s+", " ", option.help).replace("%%", "%") in plain
    assert "EXIT STATUS" in plain and "TMPDIR" in plain


@pytest.mark.parametrize("command", [["man", "-l", "-Tutf8", "--warnings"], ["mandoc", "-W", "error", "-T", "utf8"]])
def test_the_page_can_be_read(tmp_path, command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} here")
    page = tmp_path / "mrcz.1"
    page.write_text(_man.man_page(PARSER, "1.0"), "utf-8")
    for width in ("40", "80"):
        environment = {**os.environ, "MANWIDTH": width, "LC_ALL": "C.UTF-8"}
        done = subprocess.run([*command, str(page)], capture_output=True, text=True, env=environment)
        shown = re.sub(".\b", "", done.stdout)
        assert done.returncode == 0 and done.stderr == "" and "compress, check, describe" in re.sub(r"\s+", " ", shown)


@pytest.mark.parametrize("what", ["man", "bash", "zsh", "fish"])
def test_pages_are_made_before_the_core_is_built(tmp_path, what):
    """As Meson does: from the folder of the sources alone, without anything compiled, NumPy or other packages."""
    source = Path(cli.__file__).parents[1]
    copy = tmp_path / "mrcz"
    shutil.copytree(source, copy, ignore=lambda _, names: [n for n in names if not n.endswith(".py") and "." in n])
    done = subprocess.run(
        [sys.executable, "-S", "-I", copy / "cli" / "_build.py", what, "1.0"], capture_output=True, text=True
    )
    assert done.stderr == "" and done.returncode == 0
    expected = _man.man_page(PARSER, "1.0") if what == "man" else _shells.completion(what, PARSER)
    assert done.stdout == expected
    assert Path(_build.__file__).name == "_build.py"
