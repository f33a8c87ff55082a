"""Disks as they are, beside those that are models of one."""

import os

import pytest


@pytest.fixture(scope="module", autouse=True)
def flushed(fsync) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield
