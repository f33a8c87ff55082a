"""The four journeys of docs/architecture.md, walked: which modules they enter, and that no call climbs.

Every call from one module of mrcz to another is recorded while a journey runs. The page lists the modules of each,
folder by folder from the top; the walk enters these and no others, and each call leads to a module further down that
list. What a caller gives downward to be called from there is named in `GIVEN`, and in the page.
"""

import gc
import importlib
import os
import re
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import mrcz
from mrcz.cli import build_parser

SOURCES = Path(mrcz.__file__).parent
PAGE = Path(__file__).parent.parent / "docs/architecture.md"

#: What may be called from below, by what it is: (module, name) as far as they are the same for all of its kind.
GIVEN = {
    "progress": [
        ("archive.run", "_bound.<locals>.<lambda>"),
        ("cli._plan", "run_plan.<locals>.advance"),
        ("cli.correct", "_one.<locals>.<lambda>"),
    ],
    "Judge": [("convert.judging", "judge"), ("check.origin", "_archives_stay")],
    "frames": [("check.origin", "Summing."), ("file.original", "blocks")],
    "Reader": [("file.reader", "Reader.read"), ("file.reducing", "Reductions.sum")],
    "FrameCorrection": [("correct.pipeline", "Correction.")],
    "work": [("correct.", "<locals>")],  # a part of an image, for `in_ranges` to have done by a thread
}

# Words of the journeys: the layers of pyproject.toml, the highest first; those of one line know nothing of each other.
LAYERS = (("cli",), ("session",), ("archive",), ("convert",), ("check",), ("file", "correct"), ("container", "storage"))


def module_of(code):
    """A module of mrcz, or None: for other packages, and the wrapper that explains wrong keywords, which stands in
    every door of the package and is no room."""
    if not code.co_filename.startswith(f"{SOURCES}{os.sep}") or code.co_name in ("<module>", "right_keywords"):
        return None
    name = code.co_filename[len(str(SOURCES)) + 1 : -len(".py")].replace(os.sep, ".").removesuffix(".__init__")
    return None if name == "file.wrong_names" else name


def walk(journey):
    """Calls between modules of mrcz, counted: (caller, called, name of the function), on all threads; the caller is
    None where it is not ours."""
    calls, known, own = Counter(), {}, threading.local()

    def profile(frame, event, arg):
        if event not in ("call", "return"):
            return
        stack = own.__dict__.setdefault("stack", [None])
        if event == "return":
            if len(stack) > 1:
                stack.pop()
            return
        code = frame.f_code
        if code not in known:
            known[code] = module_of(code)
        module = known[code]
        if module is not None and module != stack[-1]:
            calls[stack[-1], module, code.co_qualname] += 1
        stack.append(module or stack[-1])

    journey()  # what is imported or kept at the first time is no part of it
    gc.collect()
    gc.disable()  # nor is what other tests left behind
    before = sys.getprofile(), threading.getprofile()
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        journey()
    finally:
        sys.setprofile(before[0])
        threading.setprofile(before[1])
        gc.enable()
    return calls


def is_given(module, name):
    return any(
        module.startswith(where) and (name.startswith(what) or (what == "<locals>" and what in name))
        for kind in GIVEN.values()
        for where, what in kind
    )


def told(journey):
    """The modules of a journey as the page lists them, from top to bottom, in its lines from left to right."""
    block = re.search(rf"^```text\n{journey}: .*\n((?:.*\n)*?)```", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert block is not None, f"no walk of {journey!r} in {PAGE.name}"
    modules = []
    for line in re.sub(r"\n +", " ", "\n" + block[1]).strip("\n").splitlines():
        folder, *names = re.split(r"[,\s]+", line.strip())
        modules += names if folder == "mrcz" else [f"{folder}.{name}".removesuffix(".__init__") for name in names]
    assert len(modules) == len(set(modules)), f"{journey} enters a file twice"
    return modules


@pytest.fixture
def journeys(tmp_path, rng, capsys):
    frames = rng.poisson(1, (4, 64, 64)).astype("u1")
    plain, packed = tmp_path / "plain.mrc", tmp_path / "packed.mrcz"
    mrcz.write(plain, frames)
    mrcz.write(packed, frames)
    parser, _ = build_parser()

    def command(*arguments):
        args = parser.parse_args([str(argument) for argument in arguments])
        module = importlib.import_module(f"mrcz.cli.{args.command}")

        def run():
            for made in ("plain.mrcz", "packed_corrected.mrcz"):
                (tmp_path / made).unlink(missing_ok=True)
            assert module.run(args) == 0

        return run

    def read():
        with mrcz.open(packed) as reader:
            np.testing.assert_array_equal(reader[1], frames[1])

    return {
        "write": lambda: mrcz.write(tmp_path / "new.mrcz", frames, overwrite=True),
        "read": read,
        "compress": command("compress", "-q", "-n", 1, plain),
        "correct": command("correct", "-q", "-n", 1, packed),
    }


@pytest.mark.parametrize("name, opened", [("write", 0), ("read", 1), ("compress", 1), ("correct", 2)])
def test_journey(journeys, name, opened):
    calls = walk(journeys[name])
    order = {module: place for place, module in enumerate(told(name))}
    assert {called for _, called, _ in calls} == set(order)
    climbs = [
        f"{caller} -> {called}.{function}"
        for caller, called, function in sorted(calls, key=str)
        if caller is not None and order[called] < order[caller] and not is_given(called, function)
    ]
    assert not climbs
    assert sum(n for (_, _, function), n in calls.items() if function == "open_frames") == opened


@pytest.mark.parametrize("name", ["write", "read", "compress", "correct"])
def test_page_goes_down_the_layers(name):
    """The order of the page is that of the contract, so that a walk along it climbs into no higher folder."""
    place = {folder: number for number, layer in enumerate(LAYERS) for folder in layer}
    floors = [place.get(module.split(".")[0], len(LAYERS)) for module in told(name)]
    assert floors == sorted(floors)


def test_page_names_what_is_given():
    text = PAGE.read_text(encoding="utf-8").partition("Given downward")[2]
    assert all(f"**{kind}**" in text for kind in GIVEN)


def test_a_climb_is_seen(tmp_path, rng):
    """The recorder itself: a callback that nobody named is told with its caller and its name."""
    source = tmp_path / "a.mrc"
    mrcz.write(source, rng.poisson(1, (2, 8, 8)).astype("u1"))

    def journey():
        mrcz.compress(source, tmp_path / "a.mrcz", overwrite=True, check=True, progress=lambda done, total: None)

    calls = walk(journey)
    assert ("storage.whole", "convert.judging", "judge") in calls
    assert ("convert.copy", "file.writer", "Writer.finish") in calls
    assert is_given("convert.judging", "judge") and not is_given("file.writer", "Writer.finish")
