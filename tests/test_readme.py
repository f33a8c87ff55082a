"""The README and the pages do what they say: what is code in them runs, their links lead somewhere.

Every block of code is one of these, and `test_every_block_is_accounted_for` sees to it:

- below ``<!-- listing -->``: commands (``$ …``) are run and have to print what follows, times and rates apart;
- ``sh``: commands that have to succeed;
- ``python``: with ``>>>`` a doctest, else lines that have to run;
- compared by a test of its own (`ELSEWHERE`), or not run for a reason that stands in `NOT_RUN`.
"""

import contextlib
import doctest
import glob
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from servers import RangeServer

import mrcz
from mrcz import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = {page: page.relative_to(ROOT).as_posix() for page in PAGES}
#: mark, kind, text of every block of a page
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[a-z ]+) -->\n)?```(?P<kind>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
BLOCKS = {page: [match.groupdict() for match in BLOCK.finditer(page.read_text(encoding="utf-8"))] for page in PAGES}


def first_line(block):
    return block["text"].split("\n")[0]


# ---- files that the pages take for granted -------------------------------------------------------------------------


def counts(seed, shape, dtype=np.uint8, rate=1.0):
    return np.random.default_rng(seed).poisson(rate, shape).astype(dtype)


def files_of_the_command_line():
    """What docs/cli.md takes for granted, in the current directory."""
    for folder in ("session", "movies", "new", "archive", "deposition", ".zfunc"):
        Path(folder).mkdir()
    Path(".local/share/bash-completion/completions").mkdir(parents=True)
    Path(".config/fish/completions").mkdir(parents=True)
    movie = counts(0, (8, 96, 96), rate=3.0)
    mrcz.write("movie.mrc", movie, pixel_size=0.83)
    mrcz.compress("movie.mrc", "movie.mrcz")
    mrcz.write("map.mrc", np.random.default_rng(1).normal(size=(12, 16, 16)).astype(np.float32), kind="volume")
    shutil.copy("map.mrc", "deposition/map.mrc")
    mrcz.write("gain.mrc", np.random.default_rng(2).normal(1, 0.02, (96, 96)).astype(np.float32))
    for number in range(4):
        for folder, suffix in (("session", ".mrc"), ("movies", ".mrc"), ("new", ".mrcz"), ("archive", ".st.mrcz")):
            mrcz.write(f"{folder}/movie_{number}{suffix}", counts(number, (8, 96, 96), rate=3.0), sync=False)
    whole = bytearray(Path("movie.mrcz").read_bytes())
    Path("short.mrc").write_bytes(Path("movie.mrc").read_bytes()[:-5000])
    Path(".movie.mrcz.1f2e3d4c.part").write_bytes(whole[:-3000])
    whole[int(mrcz.open("movie.mrcz").index.offsets[3]) + 200] ^= 255
    Path("broken.mrcz").write_bytes(whole)


@pytest.fixture(scope="module")
def example_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    with contextlib.chdir(folder):
        files_of_the_command_line()
    return folder


COMMAND_LINES = [
    line
    for block in BLOCKS[ROOT / "docs" / "cli.md"]
    if block["kind"] == "sh" and not first_line(block).startswith("mrcz mount")
    for line in block["text"].splitlines()
]


def for_container():
    """docs/container.md: frames as they come, later ones, and a file of some length."""
    import dask.array
    import xarray

    frames = counts(3, (50, 64, 64))
    camera = [(frame, 0.1 * k) for k, frame in enumerate(frames)]
    return {"mrcz": mrcz, "numpy": np, "camera": camera, "more": counts(4, (3, 64, 64)), "dask": dask, "xarray": xarray}


def for_correction():
    """docs/correction.md: a stack with hot pixels and the references of its camera; movies of a session."""
    from mrcz.correct import fit_events
    from mrcz.simulate import Detector

    camera = Detector((128, 128), seed=5)
    stack = camera.stack(30, 1.2).frames
    mrcz.write("movie.mrcz", stack)
    Path("movies").mkdir()
    for number in range(4):
        mrcz.write(f"movies/movie_{number}.mrc", camera.stack(20, 3.0, number).frames)
    mrcz.write("gain.mrc", camera.gain)
    dark = np.zeros((128, 128), np.float32)
    return {"stack": stack, "gain": camera.gain, "dark": dark, "movie": stack, "fit_events": fit_events}


def for_archives():
    """docs/archive.md: a session."""
    Path("krios1/session1").mkdir(parents=True)
    mrcz.write("krios1/session1/movie.mrc", counts(5, (8, 64, 64)))
    mrcz.write("krios1/session1/floats.mrc", counts(6, (40, 64, 64), np.float32))
    Path("krios1/session1/movie.mdoc").write_text("[ZValue = 0]\n")
    return {}


EXAMPLES = {"archive.md": for_archives, "container.md": for_container, "correction.md": for_correction}

# ---- listings ----------------------------------------------------------------------------------------------------
#
# A block of commands ($ …) and what they print, below the comment "listing", is run, and has to print that again; times
# and rates apart, which are those of whoever measured them.

LISTINGS = [(page.name, block["text"]) for page in PAGES[:1] for block in BLOCKS[page] if block["mark"] == "listing"]
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


def output(command, folder, *, code=0):
    """What a command line prints in a folder where ``mrcz`` is this one; it has to end with that exit code."""
    programs = folder / ".programs"
    programs.mkdir(exist_ok=True)
    (programs / "mrcz").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mrcz "$@"\n')
    (programs / "mrcz").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "COLUMNS": "120", "HOME": str(folder)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, text=True, **pipes)
    assert done.returncode == code, f"{command}: exit code {done.returncode}\n{done.stdout}"
    return done.stdout


def execute(command, folder, *, code=0):
    """Run a command line, which has to end with that exit code: in this process where that makes no difference, in a
    shell what has more than one command, or more than names in it. What is printed stands in listings: `output`."""
    words = shlex.split(command, comments=True)
    if words[:1] != ["mrcz"] or re.search(r"""[|&;<>()$`"'?~{}\[\]\\]""", command.split("#")[0]):
        output(command, folder, code=code)
        return
    said = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
    environment = mock.patch.dict(os.environ, {"COLUMNS": "120", "HOME": str(folder)})
    with contextlib.chdir(folder), environment, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        found = [sorted(glob.glob(word)) if "*" in word else [word] for word in words[1:]]
        ended = cli.main([name for names in found for name in names])
    assert ended == code, f"{command}: exit code {ended}\n{said.buffer.getvalue().decode()}"


def check_listing(page, text, folder):
    shown, printed = masked(text), []
    for line in text.splitlines():
        if line.startswith("$ "):
            printed += [line, *output(line[2:], folder).splitlines()]
    assert masked("\n".join(printed)) == shown, "\n".join([page, *printed])


@pytest.mark.skipif(os.name == "nt", reason="listings are of a Unix shell")
@pytest.mark.parametrize("page, text", LISTINGS, ids=[text.split("\n")[0][2:] for _, text in LISTINGS])
def test_listings_are_what_the_commands_print(tmp_path, request, page, text):
    if any(word in text for word in ("session/", "micrograph")):
        collection = request.getfixturevalue("data_dir")
        for name, source in REAL_FILES.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(collection / source, tmp_path / name)
            (tmp_path / name).chmod(0o644)
    if "micrograph.mrcz" in text:
        output("mrcz compress micrograph.mrc", tmp_path)
    check_listing(page, text, tmp_path)


# ---- every block -------------------------------------------------------------------------------------------------

#: Kinds of blocks that a test of their own compares: kind (or mark), page -> that test.
ELSEWHERE = {
    ("python mrcfile", "docs/mrcfile.md"): "tests/test_mrcfile_page.py",
    ("python mrcz", "docs/mrcfile.md"): "tests/test_mrcfile_page.py",
    ("hexdump", "docs/container.md"): "tests/test_documents.py, byte for byte",
    ("commands", "docs/cli.md"): "test_the_list_of_commands",
    ("commands", "CONTRIBUTING.md"): ".ci/contributing, in a fresh clone",
    ("sh", "CONTRIBUTING.md"): ".ci/run: the linters, the suite and .ci/docs",
    ("mermaid", "docs/architecture.md"): "test_what_the_architecture_names_is_there",
    ("text", "docs/architecture.md"): "tests/test_journeys.py",
    ("text", "docs/archive.md"): "tests/archive/test_bag.py",
    ("text", "docs/archive-operating.md"): "tests/archive/test_hook.py, the four; a crontab",
    ("ini", "docs/archive-operating.md"): "units for systemd, which no test has",
    ("sql", "docs/archive.md"): "tests/archive/test_table.py",
    ("sh", "docs/archive-cluster.md"): "tests/archive: test_dask, test_uploading, each with real processes",
    ("script", "docs/archive-cluster.md"): "tests/archive/test_cluster_page.py, without a SLURM",
    ("python", "docs/archive-cluster.md"): "the same",
    ("bash", "docs/archive-cluster.md"): "the same, as text",
}
#: First lines of blocks that are not run, and why.
NOT_RUN = {
    "pip install . && mrcz demo": ".ci/run runs it in an environment of its own",
    "pip install '.[test]' && pytest": "the same",
    "mrcz mount archive/ /mnt/plain               # /mnt/plain/movie.mrcs is archive/movie.mrcz, decoded as it is read":
        "tests/clients/test_mount.py mounts, where it may, in a folder of its own",
    "mrcz mount archive/ /mnt/plain": "the same",
    "sha256sum -c manifest-sha256.txt": "tests/archive/test_bag.py, by both programs",
    "mrcz -i IN -o OUT [-c CODEC] [-B BYTES] [-l LEVEL] [-f FILTER] [-n THREADS]": "a form, not a command",
    '[project.entry-points."mrcz.formats"]': "a part of another package's pyproject.toml",
    "frame  →  (events replaced)  →  (frame − dark) · gain^γ  →  outliers replaced  →  − KOMA pattern": "a formula",
}  # fmt: skip


def runs(page, block):
    """Whether a block is one of those that are run in their page's folder."""
    if block["kind"] not in ("sh", "python") and block["mark"] != "listing":
        return False
    return first_line(block) not in NOT_RUN and (block["mark"] or block["kind"], NAMES[page]) not in ELSEWHERE


def test_every_block_is_accounted_for():
    seen = set()
    for page in PAGES:
        assert page.read_text(encoding="utf-8").count("```") == 2 * len(BLOCKS[page]), f"{page}: a block nobody sees"
        for block in BLOCKS[page]:
            key = (block["mark"] or block["kind"], NAMES[page])
            seen |= {key, first_line(block)}
            known = runs(page, block) or key in ELSEWHERE or first_line(block) in NOT_RUN
            assert known, f"{NAMES[page]}: what is this block? {first_line(block)}"
            assert block["mark"] == "listing" or not block["text"].startswith("$ "), f"{page}: an unmarked listing"
    assert seen >= set(ELSEWHERE) | set(NOT_RUN), "listed above, and not in the pages"


RUN = [page for page in PAGES if any(runs(page, block) for block in BLOCKS[page]) and page.name != "cli.md"]


@pytest.mark.skipif(os.name == "nt", reason="some commands are of a Unix shell")
@pytest.mark.parametrize("page", RUN, ids=[NAMES[page] for page in RUN])
def test_blocks_run_in_their_order(tmp_path, monkeypatch, page):
    """All blocks of a page, in one folder that holds what the page takes for granted."""
    monkeypatch.chdir(tmp_path)
    server = RangeServer(tmp_path)
    with server if "https://host" in page.read_text(encoding="utf-8") else contextlib.nullcontext():
        given = EXAMPLES.get(page.name, dict)()
        names: dict = {}
        for block in BLOCKS[page]:
            if not runs(page, block) or (page.name == "README.md" and block["mark"] == "listing"):
                continue
            text = block["text"]
            if block["mark"] == "listing":
                check_listing(NAMES[page], text, tmp_path)
            elif block["kind"] == "sh":
                for line in text.splitlines():
                    execute(line, tmp_path)
            elif ">>> " in text:
                example = doctest.DocTestParser().get_doctest(text, names, NAMES[page], str(page), 0)
                result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, clear_globs=False)
                assert result.failed == 0 and result.attempted > 0
                names.update(example.globs)
            else:
                names.update(given)  # the same for every block, whatever those before made of it
                code = text.replace("https://host", getattr(server, "url", ""))
                exec(compile(code, NAMES[page], "exec"), names)


@pytest.mark.skipif(os.name == "nt", reason="the commands are of a Unix shell")
@pytest.mark.parametrize("line", COMMAND_LINES, ids=[line.split("#")[0].strip() for line in COMMAND_LINES])
def test_commands_of_the_command_line_page(tmp_path, example_files, line):
    """Each is another example, so each finds the same files."""
    folder = tmp_path / "here"
    shutil.copytree(example_files, folder)
    if line.startswith("mrcz compress movie.mrc"):
        (folder / "movie.mrcz").unlink()
    if "| man" in line and shutil.which("man") is None:
        pytest.skip("no man here")
    # What was recovered has lost something: 3, as the page's table of exit codes has it.
    execute(line, folder, code=3 if line.startswith("mrcz recover") else 0)


def test_the_list_of_commands():
    page = (ROOT / "docs" / "cli.md").read_text()
    listed = re.search(r"<!-- commands -->\n```\n(.*?)```", page, re.DOTALL)[1]
    helps = {name: importlib.import_module(f"mrcz.cli.{name}").HELP for name in cli.COMMANDS}
    width = max(map(len, helps)) + 3
    assert listed.splitlines() == [f"mrcz {name:{width}}{text}" for name, text in helps.items()]


# ---- what the pages name -------------------------------------------------------------------------------------------

SOURCES = "".join(
    path.read_text(encoding="utf-8")
    for path in (ROOT / "src").rglob("*")
    if path.suffix in (".py", ".pyx", ".pxd", ".c", ".h")
)
TESTS = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_what_the_architecture_names_is_there(name):
    """Files, folders, modules and their names, functions and classes: after a move the pages move too."""
    text = (ROOT / name).read_text(encoding="utf-8")
    words = set(re.findall(r"`([^`\n]+)`", text))
    paths = {word for word in words if re.match(r"(src|tests|bench|docs|\.ci)/", word)}
    dotted = {word for word in words if re.fullmatch(r"_?c?mrcz(\.\w+)+", word)}
    for block in BLOCKS[ROOT / name]:  # to mermaid a semicolon ends a line, and the diagram is none
        assert block["kind"] != "mermaid" or ";" not in block["text"]
    assert len(paths) >= 6 and (dotted or name == "CONTRIBUTING.md")
    for word in paths:
        assert (ROOT / word).exists(), word
        assert (ROOT / word).is_dir() == word.endswith("/") or (ROOT / word).parent.name == ".ci", word
    for word in dotted:
        parts = word.split(".")
        module = importlib.import_module(parts[0])
        for at in range(1, len(parts)):
            try:
                module = importlib.import_module(".".join(parts[: at + 1]))
            except ImportError:
                module = getattr(module, parts[at])
    for word in words - paths - dotted:
        for called in re.findall(r"^(\w+)(?:\(.*\))?$", word):
            assert re.search(rf"\b{called}\b", SOURCES + TESTS), word


@pytest.mark.parametrize("folder", ["src/mrcz"])
def test_every_folder_is_in_the_architecture(folder):
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}
    assert folders == set(re.findall(r"^\| `src/mrcz/(\w+)/` \|", text, re.MULTILINE))


def test_what_the_checkout_needs_is_in_the_dev_group():
    """An editable install is built without isolation, so its group has every requirement of a build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["build-system"]["requires"]) <= set(project["dependency-groups"]["dev"])


def anchors(page):
    """Of the headings, as a forge and our site make them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.+)$", text, re.M)}


def test_links():
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s]*\.md|)#([^)]*)\)", page.read_text(encoding="utf-8")):
            there = page if not target else (page.parent / target).resolve()
            assert anchor in anchors(there), f"{NAMES[page]}: {target}#{anchor}"
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_exist():
    text = "".join(page.read_text() for page in [ROOT / "README.md", ROOT / "docs" / "cli.md"])
    used = set(re.findall(r"^(?:\$ )?mrcz ([a-z]+)", text, re.MULTILINE))
    assert used <= set(cli.COMMANDS) and used >= {"compress", "decompress", "info", "verify"}
    for command in cli.COMMANDS:
        assert f"mrcz {command}" in text, f"docs/cli.md says nothing about {command}"
