"""Sizes, ratios, and what JSON can say."""

import json
import os
from pathlib import Path

import pytest

from mrcz.archive.words import plain, size, times


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (999_499, "999 kB"), (999_500, "1.00 MB"), (3e15, "3.00 PB")],
)
def test_sizes(n_bytes, text):
    assert size(n_bytes) == text


def test_ratios():
    assert [times(value) for value in (4.25, 9.996, 250.04, 0, -1)] == ["4.25", "10.0", "250.0", "-", "-"]


def test_all_that_is_made_plain_is_json_for_everybody():
    value = {os.fsdecode(b"\xff"): (1, 2.5, None, True, float("nan"), Path("/a")), "b": {"c": ["ü\n"]}, 3: float("inf")}
    made = plain(value)
    assert made == {"\\xff": [1, 2.5, None, True, None, "/a"], "b": {"c": ["ü\n"]}, "3": None}
    assert json.loads(json.dumps(made, allow_nan=False)) == made
