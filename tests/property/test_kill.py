"""A writer process killed at random instants (SIGKILL): nothing that was flushed is lost, nothing read is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_writers_killed_a_few_hundred_times(tmp_path):
    program = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), "240", "1"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rounds = json.loads(done.stdout)
    assert len(rounds) == 240
    # The instants were spread: some before the first flush, some between, and frames beyond the last flush were saved.
    assert any(r["flushed"] == 0 for r in rounds) and any(0 < r["flushed"] < 60 for r in rounds)
    assert any(r["salvaged"] > r["flushed"] > 0 for r in rounds)
