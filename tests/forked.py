"""Processes for tests to kill, by the dozen: each is a fork of one that has imported what they need, since a fresh
interpreter takes longer for that than most of them live. Where a program starts is what is tested, none of this is.

They have the environment and the standard streams of this process as these were when the first of them was started.
"""

import importlib.util
import multiprocessing
import os
import signal
import sys

_context = multiprocessing.get_context("spawn" if os.name == "nt" else "forkserver")
if os.name != "nt":
    _context.set_forkserver_preload(
        ["numpy", "pytest", "mrcz", "mrcz.archive.archiving", "mrcz.archive.restoring", "mrcz.convert.export"]
    )


def start(code, *arguments):
    """Run a program that is given as text with these arguments: a `multiprocessing.Process`."""
    process = _context.Process(target=_run, args=(code, [str(one) for one in arguments]))
    process.start()
    return process


def call(path, name, *arguments):
    """Call a function of the file at a path: for what forks often, which takes ten times as long in a process as large
    as one that runs tests."""
    process = _context.Process(target=_call, args=(str(path), name, arguments))
    process.start()
    process.join()
    assert process.exitcode == 0, f"{name}: exit code {process.exitcode}; standard error says why"


def was_killed(process):
    """Wait for a process; whether it was killed."""
    process.join(60)
    return process.exitcode == -signal.SIGKILL


def _call(path, name, arguments):
    spec = importlib.util.spec_from_file_location("a_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    getattr(module, name)(*arguments)


def _run(code, arguments):
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<a program of a test>", "exec"), {"__name__": "__main__"})
