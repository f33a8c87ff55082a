"""Disks as they are: what is written here is flushed to them."""

import os

import pytest


@pytest.fixture(scope="module", autouse=True)
def flushed(fsync) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield
