"""How large an archive will be: a few files of each kind are stored for trial, and the others taken to be alike."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace

from mrcz.archive.planning import Outline
from mrcz.archive.store import store
from mrcz.archive.task import Options, Task

__all__ = ["Estimate", "estimate"]

_KINDS = 200  # suffixes told apart; what comes after is one kind
_SAMPLES = 2  # files of each
_LARGEST = 8 << 30  # bytes of a sample
_SMALL = 1 << 20  # files below this are not worth a trial of their own if larger ones are there


@dataclass
class Estimate:
    """What files of one suffix will become.

    Attributes
    ----------
    suffix : str
    files, source_bytes : int
    stored_bytes : int
        As the samples say.
    forms : tuple of str
        Of the samples.
    samples, sample_bytes : int
    """

    suffix: str
    files: int = 0
    source_bytes: int = 0
    stored_bytes: int = 0
    forms: tuple[str, ...] = ()
    samples: int = 0
    sample_bytes: int = 0


def estimate(outline: Outline, options: Options, tick: Callable[[], None] | None = None) -> list[Estimate]:
    """Sizes by suffix, the largest first.

    Samples are stored in a temporary folder (``TMPDIR``), which needs room for the largest of them.
    """
    kinds: dict[str, Estimate] = {}
    chosen: dict[str, list[Task]] = {}
    for task in outline.tasks(options, ""):
        suffix = os.path.splitext(task.source)[1].lower()
        if suffix not in kinds and len(kinds) >= _KINDS:
            suffix = "others"
        one = kinds.setdefault(suffix, Estimate(suffix))
        one.files += 1
        one.source_bytes += task.size
        samples = chosen.setdefault(suffix, [])
        if task.size <= _LARGEST:
            samples.append(task)
            samples.sort(key=lambda task: task.size < _SMALL)  # in the tree's order otherwise
            del samples[_SAMPLES:]
    with tempfile.TemporaryDirectory(prefix="mrcz-estimate-") as folder:
        for suffix, samples in chosen.items():
            before = after = 0
            forms: set[str] = set()
            for k, task in enumerate(samples):
                if tick is not None:
                    tick()
                place = os.path.join(folder, f"{k}")
                record = store(replace(task, root=place, path="s/data/a", packed_path="s/data/a.mrcz"))
                if record.event == "stored":
                    before, after = before + record.source_bytes, after + record.stored_bytes
                    forms.add(record.form)
                    os.unlink(os.path.join(place, record.path))
            one = kinds[suffix]
            one.forms, one.samples, one.sample_bytes = tuple(sorted(forms)), len(samples), before
            one.stored_bytes = round(one.source_bytes * after / before) if before else one.source_bytes
    return sorted(kinds.values(), key=lambda one: -one.source_bytes)
