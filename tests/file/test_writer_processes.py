"""A Writer and its processes: forked children, interpreters that end, two processes with one file."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import mrcz
from mrcz import MrczError

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

START = """
import multiprocessing, os, sys, threading, time, warnings
import numpy as np, mrcz
path, ending = sys.argv[1], sys.argv[2]
a = np.random.default_rng(0).poisson(1, (6, 64, 64)).astype("u1")
"""


def run(tmp_path, script, ending="", *, code=0):
    """A program of its own; its standard error."""
    program = tmp_path / "program.py"
    program.write_text(START + textwrap.dedent(script))
    command = [sys.executable, "-W", "error", program, tmp_path / "a.mrcz", ending]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    program.unlink()
    assert done.returncode == code, done.stderr
    return done.stderr


ENDINGS = """
    def returns(): pass
    def exits(): sys.exit(0)
    def exits_at_once(): os._exit(0)
    def fails(): raise ZeroDivisionError
    def drops(): del globals()["w"]
    def closes(): w.close()
    def aborts(): w.abort()
    def leaves_with(): w.__exit__(None, None, None)
    def leaves_with_by_error(): w.__exit__(ValueError, ValueError(), None)
    def uses():
        for call in (lambda: w.append(a[5]), lambda: w.extend(a), w.flush, w.finish, lambda: w.index):
            try:
                call()
            except mrcz.MrczError as error:
                assert f"belongs to process {os.getppid()}" in str(error), error
            else:
                os._exit(9)
        assert len(w) and w.shape[1:] == (64, 64)
    def uses_and_closes(): uses(); w.close()
    endings = returns, exits, exits_at_once, fails, drops, closes, aborts, leaves_with, leaves_with_by_error
    endings += uses, uses_and_closes
"""


@forks
@pytest.mark.parametrize("how", ["os.fork", "multiprocessing"])
def test_no_child_touches_the_file_of_its_parent(tmp_path, how):
    """However it ends, before the first flush and after it, and when the file is closed."""
    script = f"""
    {ENDINGS}
    def fork(ending):
        if {how!r} == "os.fork":
            number = os.fork()
            if number == 0:
                sys.stderr = open(os.devnull, "w")
                ending()
                sys.exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
        else:
            process = multiprocessing.get_context("fork").Process(target=ending)
            process.start(); process.join()
            code = process.exitcode
        return code

    if {how!r} == "multiprocessing":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # it prints tracebacks
    for ending in endings:
        w = mrcz.open(path, "w")
        w.extend(a[:2])
        codes = [fork(ending)]
        w.flush()
        w.append(a[2])
        codes.append(fork(ending))
        w.extend(a[3:])
        w.close()
        wanted = 1 if ending is fails else 0
        if codes != [wanted, wanted]:
            sys.exit(f"{{ending.__name__}}: {{codes}}")
        if not np.array_equal(mrcz.read(path), a) or not mrcz.verify(path).ok:
            sys.exit(f"{{ending.__name__}}: damaged")
        if sorted(os.listdir(os.path.dirname(path))) != ["a.mrcz", "program.py"]:
            sys.exit(f"{{ending.__name__}}: {{os.listdir(os.path.dirname(path))}}")
        os.unlink(path)
    """
    run(tmp_path, script)


@forks
@pytest.mark.parametrize("ending", ["close", "abort"])
def test_a_child_that_closes_gives_its_descriptor_back(tmp_path, ending):
    script = """
    w = mrcz.open(path, "w")
    w.append(a[0])
    number = os.fork()
    if number == 0:
        before = os.dup(0)
        os.close(before)
        names = [fd for fd in range(before) if is_open(fd)]
        getattr(w, ending)()
        os._exit(0 if len([fd for fd in names if is_open(fd)]) == len(names) - 1 else 1)
    code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    w.close()
    sys.exit(code)
    """
    is_open = """
    def is_open(fd):
        try:
            os.fstat(fd)
        except OSError:
            return False
        return True
    """
    run(tmp_path, textwrap.dedent(is_open) + textwrap.dedent(script), ending)
    assert len(mrcz.read(tmp_path / "a.mrcz")) == 1


@forks
def test_a_child_that_is_forked_while_a_thread_appends(tmp_path):
    """It inherits a turn that is somebody else's; it must not wait for it."""
    script = """
    w = mrcz.open(path, "w")
    w.append(a[0])
    go, inside = threading.Event(), threading.Event()

    def slow():
        inside.set()
        go.wait(20)
        yield from a[1:]

    thread = threading.Thread(target=w.extend, args=(slow(),))
    thread.start()
    inside.wait(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 3.12 warns of forks of programs with threads
        child = os.fork()
    if child == 0:
        try:
            w.append(a[1])
        except mrcz.MrczError:
            w.close()
            w.abort()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    go.set()
    thread.join()
    w.close()
    assert np.array_equal(mrcz.read(path), a)
    """
    run(tmp_path, script)


@forks
def test_the_lock_goes_with_the_writer_not_with_its_children(tmp_path):
    """A pool that was forked while a file was written lives on; the file can be appended to all the same."""
    script = """
    for mode, frames in (("w", a[:2]), ("a", a[2:4])):
        w = mrcz.open(path, mode)
        w.extend(frames)
        w.flush()
        child = os.fork()
        if child == 0:
            time.sleep(5)
            os._exit(0)
        w.close()
        with mrcz.open(path, "a") as again:
            pass
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert np.array_equal(mrcz.read(path), a[:4])
    """
    run(tmp_path, script)


@pytest.mark.parametrize("ending", ["global", "cycle", "flushed"])
def test_an_interpreter_that_ends_with_an_open_writer(tmp_path, ending):
    """Nothing half-written is left under the name, what was flushed is, and it is told."""
    script = """
    def main():
        w = mrcz.open(path, "w")
        w.extend(a[:2])
        if ending == "flushed":
            w.flush()
            w.extend(a[2:4])
        if ending == "global":
            globals()["w"] = w
        if ending == "cycle":
            w.me = w

    main()
    """
    told = run(tmp_path, script, ending)
    path = tmp_path / "a.mrcz"
    if ending != "cycle":  # nobody collects a cycle at the end of an interpreter: its temporary file stays
        assert "its Writer was never closed, and 2 frames are lost" in told
    if ending == "flushed":
        assert len(mrcz.read(path)) == 2 and mrcz.verify(path).ok
    else:
        assert not path.exists()
    left = [name for name in os.listdir(tmp_path) if name != "a.mrcz"]
    assert all(name.endswith(".part") for name in left) and (ending == "cycle" or not left)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_another_process_appends_to_is_left_alone(tmp_path, rng, overwrite):
    path = tmp_path / "a.mrcz"
    frames = rng.poisson(1, (4, 16, 16)).astype("u1")
    mrcz.write(path, frames[:2])
    script = """
    w = mrcz.open(path, "a")
    w.append(mrcz.read(path)[0] + 1)
    print("ready", flush=True)
    sys.stdin.readline()
    w.append(mrcz.read(path)[0] + 2)
    w.close()
    """
    program = tmp_path / "program.py"
    program.write_text(START + textwrap.dedent(script))
    other = subprocess.Popen(
        [sys.executable, program, path, ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "ready\n"
        for call in (
            lambda: mrcz.write(path, frames, overwrite=overwrite),
            lambda: mrcz.writeMRC(frames, path, compressor="zstd"),
            lambda: mrcz.open(path, "a"),
        ):
            with pytest.raises((MrczError, FileExistsError), match=r"writing this file|exists"):
                call()
        assert len(mrcz.read(path)) == 2
    finally:
        other.communicate("go\n", timeout=30)
    assert other.returncode == 0
    expected = [frames[0], frames[1], frames[0] + 1, frames[0] + 2]
    assert np.array_equal(mrcz.read(path), expected) and mrcz.verify(path).ok


def test_two_processes_that_append_to_one_file(tmp_path, rng):
    """Each tries until it may: all frames of both are there, those of one opening side by side."""
    path = tmp_path / "a.mrcz"
    mrcz.write(path, np.zeros((1, 16, 16), "u2"))
    script = """
    me = int(ending)
    for k in range(10):
        while True:
            try:
                w = mrcz.open(path, "a", sync=False)
                break
            except mrcz.MrczError as error:
                assert "another process" in str(error) or "follow the last frame" in str(error), error
                time.sleep(.002)
        for j in range(3):
            w.append(np.full((16, 16), 100 * me + 10 * k + j, "u2"))
        w.close()
    """
    program = tmp_path / "program.py"
    program.write_text(START + textwrap.dedent(script))
    both = [subprocess.Popen([sys.executable, program, path, str(me)]) for me in (1, 2)]
    assert [process.wait(60) for process in both] == [0, 0]
    numbers = mrcz.read(path)[1:, 0, 0].tolist()
    assert len(numbers) == 60 and mrcz.verify(path).ok
    for me in (1, 2):
        mine = [n for n in numbers if n // 100 == me]
        assert mine == [100 * me + 10 * k + j for k in range(10) for j in range(3)]
    assert all(numbers[i] + 1 == numbers[i + 1] == numbers[i + 2] - 1 for i in range(0, 60, 3))
