"""Shared fixtures."""

import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real files from other instruments and programs (MRCZ_TEST_DATA)."""
    root = Path(__file__).resolve().parent.parent
    path = Path(os.environ.get("MRCZ_TEST_DATA", root.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real files at {path}; set MRCZ_TEST_DATA")
    return path


@pytest.fixture
def still(monkeypatch) -> None:
    """Files of this test do not change while they are opened: no need to look at thousands of damaged ones twice."""
    monkeypatch.setattr("mrcz.opening._PAUSES", ())


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator: a test that fails, fails again."""
    return np.random.default_rng(20260101)
