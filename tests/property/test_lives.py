"""Random sequences of open, append, flush, close, abort, kill and recover, by hypothesis."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_lives_of_a_file():
    program = Path(__file__).with_name("lives.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    counts = json.loads(done.stdout)
    # All of it happened: lives that ended well and badly, and frames found by appends and recovery that nobody knew of.
    assert counts["lives"] > 150 and counts["killed"] > 20 and counts["found"] > 10 and counts["salvaged"] > 10
