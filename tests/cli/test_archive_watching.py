"""`mrcz archive --watch` beside a program that writes, and killed again and again: processes, signals and clocks are
real."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from datetime import datetime

import pytest

from mrcz.archive.journal import FOLDER, JOURNAL, read_journal
from mrcz.cli import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")

WRITER = """
    import os, sys, time
    import numpy as np
    import mrcz
    top, count = sys.argv[1], int(sys.argv[2])
    frames = np.random.default_rng(1).poisson(1.0, (8, 64, 64)).astype(np.int8)
    mrcz.write(os.path.join(top, "..", "one.mrc"), frames)
    whole = open(os.path.join(top, "..", "one.mrc"), "rb").read()
    for number in range(count):
        session = f"{top}/session{number % 2}"
        os.makedirs(session, exist_ok=True)
        final = f"{session}/movie_{number}.mrc"
        name = f"{session}/.movie_{number}.mrc.Ab12Cd" if number % 3 == 0 else final
        with open(name, "wb", buffering=0) as file:
            for start in range(0, len(whole), 8192):
                file.write(whole[start : start + 8192])
                time.sleep(0.02)
        os.rename(name, final)
        print(f"session{number % 2}/movie_{number}.mrc", time.time(), flush=True)
"""


def writer(top, count):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(top), str(count)], stdout=subprocess.PIPE, text=True
    )


def watch(top, archive, *more):
    command = [sys.executable, "-m", "mrcz", "archive", "--watch", "--settle", "0.4", "--poll", "0.1", "-q", *more]
    return subprocess.Popen([*command, str(top), str(archive)], stderr=subprocess.PIPE, text=True)


def stored(archive):
    return [record for record in read_journal(archive / FOLDER / JOURNAL) if record.event == "stored"]


@pytest.fixture
def top(tmp_path):
    (tmp_path / "src").mkdir()
    return tmp_path / "src"


def check(archive):
    assert main(["archive", "--check", "-q", str(archive)]) == 0


def test_a_session_is_followed_to_its_end_and_the_hook_hears_of_it(top, tmp_path):
    archive, heard = tmp_path / "dst", tmp_path / "heard"
    with writer(top, 6) as writing, watch(top, archive, "--idle", "4", "--hook", f"cat > {heard}") as watching:
        _, said = watching.communicate(timeout=120)
        ended = dict(line.split() for line in writing.stdout)
    assert (watching.returncode, said) == (0, "")
    records = {record.source: record for record in stored(archive)}  # the last of each
    assert set(records) == set(ended) and len(ended) == 6
    size = os.stat(tmp_path / "one.mrc").st_size
    for record in records.values():
        took = datetime.fromisoformat(record.time).timestamp() - float(ended[record.source])
        assert record.source_bytes == size and 0.3 < took < 15
    summary = json.loads(heard.read_text())
    assert summary["event"] == "finished" and summary["stored"] >= 6
    check(archive)


def test_killed_again_and_again_nothing_is_forgotten_and_nothing_done_twice(top, tmp_path):
    archive, kills = tmp_path / "dst", 0
    with writer(top, 10) as writing:
        while writing.poll() is None or kills < 3:
            with watch(top, archive, "--idle", "60") as watching:
                time.sleep(0.9 + 0.37 * (kills % 4))
                watching.kill()
            kills += 1
        names = [line.split()[0] for line in writing.stdout]
    with watch(top, archive, "--idle", "2") as watching:
        _, said = watching.communicate(timeout=120)
    assert (watching.returncode, said) == (0, "")
    done = Counter((record.source, record.source_bytes, record.mtime_ns) for record in stored(archive))
    assert {source for source, _, _ in done} == set(names) and len(names) == 10
    assert set(done.values()) == {1}
    assert not [name for _, _, files in os.walk(archive) for name in files if name.startswith(".")]
    check(archive)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(top, tmp_path, signum):
    archive, heard = tmp_path / "dst", tmp_path / "heard"
    with writer(top, 1) as writing:
        writing.communicate(timeout=60)
    with watch(top, archive, "--hook", f"echo $MRCZ_EVENT > {heard}") as watching:
        wait_for(lambda: (archive / FOLDER / JOURNAL).exists() and stored(archive))
        watching.send_signal(signum)
        watching.communicate(timeout=60)
    assert watching.returncode == 128 + signum
    assert heard.read_text() == "interrupted\n"
    with watch(top, archive, "--idle", "0") as again:
        again.communicate(timeout=60)
    assert again.returncode == 0 and len(stored(archive)) == 1
    check(archive)


def test_a_source_that_goes_away_is_told_once_and_comes_back(top, tmp_path):
    archive = tmp_path / "dst"
    with writer(top, 1) as writing:
        writing.communicate(timeout=60)
    with watch(top, archive, "--idle", "60") as watching:
        wait_for(lambda: (archive / FOLDER / JOURNAL).exists() and len(stored(archive)) == 1)
        os.rename(top, tmp_path / "away")
        time.sleep(1)
        os.rename(tmp_path / "away", top)
        (top / "session0" / "log.txt").write_text("x")
        wait_for(lambda: len(stored(archive)) == 2)
        watching.send_signal(signal.SIGTERM)
        _, said = watching.communicate(timeout=60)
    assert said.count(f"mrcz: {top}: No such file or directory; looked at again") == 1


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
