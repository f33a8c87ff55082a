"""The stacks of a session, corrected with the moving average of their neighbours (KOMA), and how far the session is.

A `KomaSession` can be saved and taken up again: stacks are added as they are recorded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Unpack

import numpy as np

from mrcz.check.origin import Overwrite
from mrcz.container.metadata import pack, unpack
from mrcz.correct import Correction, Koma, KomaReference
from mrcz.errors import FormatError, MrczError
from mrcz.file.calls import open_reader
from mrcz.file.codec import Codec
from mrcz.session.correct import Corrected, Fitting, clear_to_write, correct_file, failed
from mrcz.storage.whole import whole_file

__all__ = ["KomaSession", "koma_session"]

#: Bytes of a state file that are believed to be one.
_MOST = 1 << 40


class SessionOptions(Fitting, total=False):
    """What `koma_session` takes of reading, fitting and writing, for those who pass it on."""

    measure: bool
    overwrite: Overwrite
    codec: str | Codec | None
    permissive: bool
    signed_bytes: bool | None
    n_threads: int | None
    progress: Callable[[str, int, int], None] | None
    storage_options: dict[str, Any] | None
    dataset: str | None
    fraction: int | None
    upsampling: int


@dataclass
class KomaSession:
    """How far a session is.

    Attributes
    ----------
    koma : Koma
    waiting : dict
        Number → source of the stacks whose reference is not complete yet.
    folders : dict
        Source → where what is made of it goes; None: beside it.
    done : list of str
        Absolute paths of the stacks that were taken in.
    """

    koma: Koma
    waiting: dict[int, str] = field(default_factory=dict)
    folders: dict[str, str | None] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, n_threads: int | None = None) -> KomaSession:
        """The session that `save` wrote. Raises FormatError for anything else."""
        try:
            with open(path, "rb") as file:
                state = unpack(file.read(), limit=_MOST)
            koma = Koma.from_dict(state["koma"], n_threads=n_threads)
            waiting = {int(number): source for number, (source, _) in state["waiting"].items()}
            folders = {source: folder for source, folder in state["waiting"].values()}
            return cls(koma, waiting, folders, list(state["done"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FormatError(f"is no state of mrcz koma: {error}", path=path) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, whole or not at all; what stands there is replaced."""
        waiting = {}
        for number, source in self.waiting.items():
            folder = self.folders.get(source)
            waiting[number] = (os.path.abspath(source), None if folder is None else os.path.abspath(folder))
        state = {"koma": self.koma.to_dict(), "waiting": waiting, "done": self.done}
        with whole_file(path, overwrite=True) as file:
            file.write(pack(state))

    def new(self, sources: Iterable[str]) -> list[str]:
        """Those that were not taken in before."""
        seen = set(self.done)
        return [source for source in sources if os.path.abspath(source) not in seen]

    def unknown(self, names: Collection[str], sources: Iterable[str]) -> list[str]:
        """Names of files, without folders, that are neither in the session nor among `sources`."""
        there = {os.path.basename(path) for path in (*sources, *self.done, *self.waiting.values())}
        return sorted({os.path.basename(name) for name in names} - there)

    def correct(
        self,
        sources: Iterable[str],
        outputs: Callable[[str], Mapping[str, str]],
        *,
        exclude: Collection[str] = (),
        finish: bool = True,
        **options: Unpack[SessionOptions],
    ) -> Iterator[Corrected]:
        """Correct these stacks and those waiting, as far as their references are complete; see `koma_session`.

        Parameters
        ----------
        sources : iterable of str
            In the order of recording; those taken in before are passed over.
        exclude : collection of str
            Names of files that serve in no reference.
        **options
            Of `koma_session` (`SessionOptions`).
        """
        new, bad = self.new(sources), set()
        excluded = {os.path.basename(name) for name in exclude}
        try:
            for result in koma_session(
                new,
                self.koma,
                outputs,
                exclude=lambda number, source: os.path.basename(source) in excluded,
                finish=finish,
                waiting=self.waiting,
                **options,
            ):
                if not result.ok:
                    bad.add(os.path.abspath(result.source))
                yield result
        except ValueError:  # too few stacks to finish with; they are in all the same
            self._take_in(new, bad)
            raise
        self._take_in(new, bad)

    def _take_in(self, sources: Iterable[str], bad: Collection[str]) -> None:
        self.done += [path for path in map(os.path.abspath, sources) if path not in bad]


# Longer than 60 lines: a third of it are its words, a third names what is passed on.
def koma_session(
    sources: Iterable[str],
    koma: Koma,
    outputs: Callable[[str], Mapping[str, str]],
    *,
    exclude: Callable[[int, str], bool] | None = None,
    finish: bool = True,
    waiting: dict[int, str] | None = None,
    measure: bool = False,
    overwrite: Overwrite = False,
    codec: str | Codec | None = None,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    n_threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    storage_options: dict[str, Any] | None = None,
    dataset: str | None = None,
    fraction: int | None = None,
    upsampling: int = 1,
    **fit: Unpack[Fitting],
) -> Iterator[Corrected]:
    """Correct the stacks of a session with the moving average of their neighbours, in the order given.

    Every stack is read twice: once for its outliers and its mean, which is pushed, and once more when its reference
    is complete, ``radius`` stacks later, to be written. The outliers are fitted again then, rather than kept.

    Parameters
    ----------
    sources : iterable of str
        Stacks in the order of recording.
    koma : Koma
        Fresh, or resumed with `Koma.from_dict`; it is pushed to.
    outputs : callable
        Source → (product → path), as in `correct_file`.
    exclude : callable, optional
        ``exclude(number, source)`` → True keeps the stack out of the references of others.
    finish : bool
        End the session: write the last stacks too. False leaves them for a later call with ``waiting``.
    waiting : dict, optional
        Number → source of the stacks still waiting; filled and emptied, and to be saved together with `Koma.to_dict`.
    measure, overwrite, codec, progress, **fit
        As in `correct_file`; ``progress(source, done, total)``.
    permissive, signed_bytes, n_threads, storage_options, dataset, fraction, upsampling
        As `mrcz.open` takes them.

    Yields
    ------
    Corrected
        As the references complete; a stack that cannot be read is reported at once and is no part of the session.
    """
    waiting = {} if waiting is None else waiting

    def finished(references: list[KomaReference]) -> Iterator[Corrected]:
        for reference in references:
            source = waiting.pop(reference.index)
            tell = None if progress is None else partial(progress, source)
            try:
                out = correct_file(
                    source,
                    outputs(source),
                    koma=reference,
                    measure=measure,
                    overwrite=overwrite,
                    codec=codec,
                    permissive=permissive,
                    signed_bytes=signed_bytes,
                    n_threads=n_threads,
                    progress=tell,
                    storage_options=storage_options,
                    dataset=dataset,
                    fraction=fraction,
                    upsampling=upsampling,
                    **fit,
                )
                yield replace(out, report={**out.report, **_about(reference)})
            except (OSError, MrczError, ValueError) as error:
                yield failed(source, error)

    raw = list(waiting.values())  # no product of any stack replaces one of these
    for source in sources:
        raw.append(source)
        try:
            clear_to_write(raw, outputs(source), overwrite)
            with open_reader(
                source,
                permissive=permissive,
                signed_bytes=signed_bytes,
                n_threads=n_threads,
                storage_options=storage_options,
                dataset=dataset,
                fraction=fraction,
                upsampling=upsampling,
            ) as reader:
                first = Correction.fit(reader, n_threads=n_threads, **fit)
                frames = len(reader)
                mean = first.correct_sum(reader.sum(n_threads=n_threads), frames) / np.float32(frames)
            number = koma.pushed
            out = koma.push(mean, frames=frames, exclude=exclude is not None and exclude(number, source))
        except (OSError, MrczError, ValueError) as error:
            yield failed(source, error)
            continue
        waiting[number] = source
        yield from finished(out)
    if finish and koma.pushed:
        yield from finished(koma.finish())


def _about(reference: KomaReference) -> dict[str, Any]:
    """What a report says of the reference."""
    return {
        "number": reference.index,
        "reference_stacks": reference.stacks,
        "pattern_factors": reference.factors,
    }
