"""How large an archive will be: a few files of each kind are stored for trial, and the others taken to be alike."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mrcz.archive.planning import Outline
from mrcz.archive.store import store
from mrcz.archive.task import Options, Task

__all__ = ["Estimate", "estimate"]

_KINDS = 200  # suffixes told apart; what comes after is one kind
_SAMPLES = 2  # files of each size
_SIZES = 4  # sizes of a kind of which files are tried: movies of counts and of floats have one suffix
_LEAST = 0.02  # a size with less of the bytes of its kind is not tried
_LARGEST = 8 << 30  # bytes of a sample
_SMALL = 1 << 20  # files below this are of one size


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
        Files that were tried.
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
    sizes: dict[str, dict[int, _Size]] = {}
    for task in outline.tasks(options, ""):
        suffix = os.path.splitext(task.source)[1].lower()
        if suffix not in kinds and len(kinds) >= _KINDS:
            suffix = "others"
        one = kinds.setdefault(suffix, Estimate(suffix))
        one.files += 1
        one.source_bytes += task.size
        # Twice as large is another size.
        size = sizes.setdefault(suffix, {}).setdefault(max(task.size, _SMALL).bit_length(), _Size())
        size.nbytes += task.size
        size.sessions.add(task.session)
        if task.size <= _LARGEST and len(size.tasks) < _SAMPLES:
            size.tasks.append(task)
    with tempfile.TemporaryDirectory(prefix="mrcz-estimate-") as folder:
        for suffix, of_kind in sizes.items():
            _try(kinds[suffix], sorted(of_kind.values(), key=lambda size: -size.nbytes), folder, tick)
    return sorted(kinds.values(), key=lambda one: -one.source_bytes)


@dataclass
class _Size:
    """Files of one kind and about one size."""

    nbytes: int = 0
    sessions: set[str] = field(default_factory=set)
    tasks: list[Task] = field(default_factory=list)  # to be tried


def _try(one: Estimate, sizes: list[_Size], folder: str, tick: Callable[[], None] | None) -> None:
    """What files of one kind become, by trial of a few of each size."""
    forms: set[str] = set()
    tried = stored = 0.0  # bytes of the sizes that were tried, and what they become
    for k, size in enumerate(sizes[:_SIZES]):
        if k and size.nbytes < _LEAST * one.source_bytes:
            break
        before = after = shared = 0
        for number, task in enumerate(size.tasks):
            if tick is not None:
                tick()
            place = os.path.join(folder, f"{number}")
            record = store(replace(task, root=place, path="s/data/a", packed_path="s/data/a.mrcz"))
            one.samples += 1
            if record.event == "stored":
                before, after = before + record.source_bytes, after + record.stored_bytes
                shared = max(shared, sum(nbytes for _, _, nbytes in record.parts))
                forms.add(record.form)
                os.unlink(os.path.join(place, record.path))
        one.sample_bytes += before
        if before:  # gain references are stored once a session
            tried += size.nbytes
            stored += size.nbytes * after / before + shared * len(size.sessions)
    one.forms = tuple(sorted(forms))
    one.stored_bytes = round(one.source_bytes * stored / tried) if tried else one.source_bytes
