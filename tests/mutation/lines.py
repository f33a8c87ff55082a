"""A pytest plugin for `mutate.py`: which tests run which lines of some files, and how long each test takes.

``-p lines`` with MUTATION_FILES (paths, separated by os.pathsep) and MUTATION_REPORT (a JSON file: test -> [seconds,
{path: [line, ...]}]). What a test runs in other processes is not seen.
"""

import json
import os
import sys
import threading
import time

import pytest

_FILES = set(os.environ["MUTATION_FILES"].split(os.pathsep))
_found = {}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    seen = {path: set() for path in _FILES}

    def in_file(frame, event, argument):
        if event == "line":
            seen[frame.f_code.co_filename].add(frame.f_lineno)
        return in_file

    def anywhere(frame, event, argument):
        if frame.f_code.co_filename in seen:
            seen[frame.f_code.co_filename].add(frame.f_lineno)
            return in_file
        return None

    begun = time.perf_counter()
    threading.settrace(anywhere)
    sys.settrace(anywhere)
    try:
        yield
    finally:
        sys.settrace(None)
        threading.settrace(None)
    lines = {path: sorted(numbers) for path, numbers in seen.items() if numbers}
    _found[item.nodeid] = [time.perf_counter() - begun, lines]


def pytest_sessionfinish():
    with open(os.environ["MUTATION_REPORT"], "w") as file:
        json.dump(_found, file)
