"""Corrections of files: one stack, or a session of them. Arrays are corrected in `mrcz.correct`; here they are read and
written, frame by frame, so that a stack need never fit in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mrcz.check.origin import Overwrite, check_replaceable, replacing
from mrcz.container.names import check_new_name
from mrcz.correct import (
    Correction,
    Koma,
    KomaReference,
    SessionStatistics,
    correlation_report,
    fit_outliers,
    stack_moments,
)
from mrcz.errors import MrczError
from mrcz.file.reader import Reader
from mrcz.file.writer import Writer
from mrcz.session.references import save_image, save_mask
from mrcz.storage.disk import is_same_place
from mrcz.storage.whole import Judge

__all__ = ["PRODUCTS", "Corrected", "correct_file", "describe", "destination", "gather_statistics", "koma_session"]

#: What can be written, and what its name ends in.
PRODUCTS = {"stack": "_corrected.mrcz", "sum": "_sum.mrc", "mask": "_mask.mrc"}

#: Pixels of events that are listed in the metadata of a corrected stack, 0.8 MB; of more only their number is told.
MOST_EVENTS = 1 << 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Corrected:
    """What became of one stack.

    ``report`` are the numbers of `OutlierModel.report`, with R if measured; ``correction`` what was applied.
    """

    source: str
    destinations: tuple[str, ...] = ()
    report: dict[str, Any] = field(default_factory=dict)
    correction: Correction | None = field(default=None, repr=False)
    error: str | None = None
    damaged: bool = False

    @property
    def ok(self) -> bool:
        """Whether all went well."""
        return self.error is None

    def asdict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"source": self.source, "destinations": list(self.destinations), "error": self.error, **self.report}


def destination(source: str, product: str, folder: str | None = None, suffix: str | None = None) -> str:
    """Where ``product`` of ``source`` goes: beside it or into ``folder``, ``movie.mrcz`` → ``movie_sum.mrc``."""
    from mrcz.filetypes import plain_name

    stem = os.path.splitext(plain_name(os.path.basename(source)))[0]
    base, usual = os.path.splitext(PRODUCTS[product])
    return os.path.join(os.path.dirname(source) if folder is None else folder, stem + base + (suffix or usual))


def describe(correction: Correction) -> dict[str, Any]:
    """A correction in a few hundred bytes, for the metadata of what it made: steps, digests and outlier numbers; events
    one by one, up to `MOST_EVENTS` pixels."""
    state = correction.to_dict(references=False)
    kept: dict[str, Any] = {
        k: v for k, v in state.items() if k not in ("outliers", "events", "dark", "gain", "koma") and v is not None
    }
    if correction.outliers is not None:
        kept["outliers"] = correction.outliers.report()
    if (events := correction.events) is not None:
        kept["events"] = events.report()
        if events.n_pixels <= MOST_EVENTS:  # what was there, 12 bytes a pixel: all that is needed to put it back
            kept["events"] |= {"frame": events.frame, "pixel": events.pixel, "value": events.value}
    return {**kept, "steps": str(correction)}


def correct_file(
    source: str | os.PathLike[str],
    outputs: Mapping[str, str] | None = None,
    *,
    measure: bool = False,
    mask_style: str | None = None,
    overwrite: Overwrite = False,
    n_threads: int | None = None,
    progress: Progress | None = None,
    reading: Mapping[str, Any] | None = None,
    writing: Mapping[str, Any] | None = None,
    **fit: Any,
) -> Corrected:
    """Fit a correction to a stack on disk and write what was asked for.

    Parameters
    ----------
    source : path-like
        MRC or MRCZ.
    outputs : mapping, optional
        Product ("stack", "sum", "mask") → path. None: nothing is written.
    measure : bool
        R before and after, in-sample and held out, into the report; reads the stack four more times.
    mask_style : str, optional
        Of a mask written as text: "relion" (default) or "serialem".
    overwrite : bool or "any"
        True replaces files that are there, but no archive of another file; "any" these too. Never the source.
    n_threads : int, optional
    progress : callable, optional
        ``progress(done, total)`` in frames.
    reading, writing : mapping, optional
        Options of `mrcz.open`, and of `mrcz.write` for the corrected stack.
    **fit
        Of `Correction.fit`: method, dark, gain, gamma, koma, defects, events, noise, seed, and those of `fit_outliers`.

    Raises
    ------
    FileExistsError
        A product is there already.
    ValueError
        A product is the source itself, or another product.
    OtherSourceError
        An archive is in the way of a product.
    MrczError, OSError
    """
    name = os.fspath(source)
    outputs = dict(outputs or {})
    _clear_to_write([name], outputs, overwrite)
    with Reader(name, n_threads=n_threads, **dict(reading or {})) as reader:
        correction = Correction.fit(reader, n_threads=n_threads, **fit)
        report: dict[str, Any] = {"frames": int(reader.shape[0])}
        if correction.outliers is not None:
            report.update(correction.outliers.report())
        if correction.events is not None:
            report["events"] = correction.events.report()
        if measure:
            report.update(_measure(reader, correction, fit))
        _write(reader, correction, outputs, replacing(overwrite), n_threads, progress, dict(writing or {}), mask_style)
    return Corrected(name, tuple(outputs.values()), report, correction)


def _clear_to_write(sources: Iterable[str], outputs: Mapping[str, str], overwrite: Overwrite) -> None:
    """Refuse before any work what would be refused after it; what counts is the moment a product gets its name."""
    sources = tuple(sources)
    for number, (product, path) in enumerate(outputs.items()):
        if product == "stack":
            check_new_name(path)
        if any(is_same_place(path, source) for source in sources):
            raise ValueError(f"{path} is a raw stack itself")
        if any(is_same_place(path, other) for other in list(outputs.values())[:number]):
            raise ValueError(f"{path} is asked for twice")
        check_replaceable(path, overwrite)


class _Normalised:
    """A stack without events, after dark and gain, read frame by frame: what outliers are looked for in."""

    def __init__(self, stack: Any, correction: Correction) -> None:
        self._stack = stack
        self._parts = Correction(
            dark=correction.dark, gain=correction.gain, gamma=correction.gamma, events=correction.events
        )
        self.shape, self.dtype = stack.shape, np.dtype(np.float32)

    def __getitem__(self, i: int) -> np.ndarray:
        return self._parts.apply_frame(self._stack[i], number=i)


def _measure(reader: Any, correction: Correction, fit: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("method", "alpha", "n_sigma", "steepness", "relax", "fallback", "background", "super_resolution", "kernel")
    options = {k: fit[k] for k in keys if k in fit}
    defects = fit.get("defects")
    if correction.bad is not None:
        defects = correction.bad if defects is None else correction.bad | (np.asarray(defects) != 0)
    plain = correction.gain is None and correction.dark is None and correction.events is None
    seen = reader if plain else _Normalised(reader, correction)
    pattern = None if correction.koma is None else np.asarray(correction.koma)
    return correlation_report(
        seen, correction.outliers, lambda half: fit_outliers(half, defects=defects, **options), pattern=pattern
    )


def _write(
    reader: Any,
    correction: Correction,
    outputs: Mapping[str, str],
    overwrite: bool | Judge,
    n_threads: int | None,
    progress: Progress | None,
    writing: dict[str, Any],
    mask_style: str | None = None,
) -> None:
    n_frames = int(reader.shape[0])
    total: np.ndarray | None = None
    if "stack" in outputs:
        options: dict[str, Any] = {
            "dtype": np.float32,
            "header": reader.header,
            "metadata": {**_dict(reader.metadata), "correction": describe(correction)},
            **writing,
        }
        with Writer(outputs["stack"], overwrite=overwrite, n_threads=n_threads, **options) as writer:
            for number, frame in enumerate(correction.frames(reader)):
                writer.append(frame)
                if "sum" in outputs:
                    total = frame.astype(np.float64) if total is None else np.add(total, frame, out=total)
                if progress:
                    progress(number + 1, n_frames)
    if "sum" in outputs:
        if total is None:
            total = correction.correct_sum(reader.sum(n_threads=n_threads), n_frames)
        _save(outputs["sum"], total.astype(np.float32), reader, overwrite)
    if "mask" in outputs and correction.outliers is not None:
        save_mask(outputs["mask"], correction.outliers.mask, style=mask_style, overwrite=overwrite)
    if progress:
        progress(n_frames, n_frames)


def _save(path: str, image: np.ndarray, reader: Any, overwrite: bool | Judge) -> None:
    size = reader.pixel_size
    known = size is not None and np.all(np.asarray(size, float) > 0)
    pixel_size = float(np.asarray(size, float).reshape(-1)[0]) if known else None
    save_image(path, image, pixel_size=pixel_size, overwrite=overwrite)


def _dict(metadata: Any) -> dict[str, Any]:
    return dict(metadata) if isinstance(metadata, Mapping) else {}


# ---- a session -------------------------------------------------------------------------------------------------------


def koma_session(
    sources: Iterable[str],
    koma: Koma,
    outputs: Callable[[str], Mapping[str, str]],
    *,
    exclude: Callable[[int, str], bool] | None = None,
    finish: bool = True,
    waiting: dict[int, str] | None = None,
    overwrite: Overwrite = False,
    measure: bool = False,
    n_threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    reading: Mapping[str, Any] | None = None,
    writing: Mapping[str, Any] | None = None,
    **fit: Any,
) -> Iterator[Corrected]:
    """Correct the stacks of a session with the moving average of their neighbours, in the order given.

    Every stack is read twice: once for its outliers and its mean, which is pushed, and once more when its reference
    is complete, ``radius`` stacks later, to be written. The outliers are fitted again then, rather than kept.

    Parameters
    ----------
    sources : iterable of str
        Stacks in the order of recording.
    koma : Koma
        Fresh, or resumed with `Koma.from_state`; it is pushed to.
    outputs : callable
        Source → (product → path), as in `correct_file`.
    exclude : callable, optional
        ``exclude(number, source)`` → True keeps the stack out of the references of others.
    finish : bool
        End the session: write the last stacks too. False leaves them for a later call with ``waiting``.
    waiting : dict, optional
        Number → source of the stacks still waiting; filled and emptied, and to be saved together with `Koma.state`.
    measure, overwrite, n_threads, progress, reading, writing, **fit
        As in `correct_file`; ``progress(source, done, total)``.

    Yields
    ------
    Corrected
        As the references complete; a stack that cannot be read is reported at once and is no part of the session.
    """
    waiting = {} if waiting is None else waiting
    options = {"n_threads": n_threads, **dict(reading or {})}

    def finished(references: list[KomaReference]) -> Iterator[Corrected]:
        for reference in references:
            source = waiting.pop(reference.index)
            tell = None if progress is None else lambda done, total, source=source: progress(source, done, total)
            try:
                out = correct_file(
                    source,
                    outputs(source),
                    measure=measure,
                    overwrite=overwrite,
                    n_threads=n_threads,
                    progress=tell,
                    reading=reading,
                    writing=writing,
                    koma=reference,
                    **fit,
                )
                extra = {
                    "number": reference.index,
                    "reference_stacks": reference.stacks,
                    "pattern_factors": reference.factors,
                }
                yield Corrected(source, out.destinations, {**out.report, **extra}, out.correction)
            except (OSError, MrczError, ValueError) as error:
                yield _failed(source, error)

    raw = list(waiting.values())  # no product of any stack replaces one of these
    for source in sources:
        raw.append(source)
        try:
            _clear_to_write(raw, outputs(source), overwrite)
            with Reader(source, **options) as reader:
                first = Correction.fit(reader, n_threads=n_threads, **fit)
                frames = len(reader)
                mean = first.correct_sum(reader.sum(n_threads=n_threads), frames) / np.float32(frames)
            number = koma.pushed
            out = koma.push(mean, frames=frames, exclude=exclude is not None and exclude(number, source))
        except (OSError, MrczError, ValueError) as error:
            yield _failed(source, error)
            continue
        waiting[number] = source
        yield from finished(out)
    if finish and koma.pushed:
        yield from finished(koma.finish())


def gather_statistics(
    sources: Iterable[str],
    statistics: SessionStatistics,
    *,
    gain: np.ndarray | None = None,
    dark: np.ndarray | None = None,
    n_threads: int | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Iterator[Corrected]:
    """Add stacks to the statistics of a session, each read once; their outliers are found by ``fdr`` and counted.

    Parameters
    ----------
    sources : iterable of str
    statistics : SessionStatistics
        Added to.
    gain, dark : ndarray (ny, nx), optional
        References with which outliers are looked for; the statistics are of what was recorded.
    n_threads : int, optional
    reading : mapping, optional
        Options of `mrcz.open`.

    Yields
    ------
    Corrected
        What each stack held; one that cannot be read or has another shape is no part of the session.
    """
    for source in sources:
        try:
            with Reader(source, n_threads=n_threads, **dict(reading or {})) as reader:
                moments = stack_moments(reader, n_threads=n_threads)
            if moments.total.shape != statistics.shape:
                raise ValueError(f"frames of {moments.total.shape} in a session of {statistics.shape}")
            pattern = None if dark is None else np.asarray(dark, np.float64) * moments.frames
            model = fit_outliers(moments.total, gain=gain, dark=pattern, n_threads=n_threads)
            statistics.add(moments, flags=model.mask, n_threads=n_threads)
        except (OSError, MrczError, ValueError, TypeError) as error:
            yield _failed(source, error)
            continue
        yield Corrected(
            source,
            report={
                "frames": moments.frames,
                "shape": list(statistics.shape),
                "n_outliers": model.n_outliers,
                "mean": model.mean / moments.frames,
            },
        )


def _failed(source: str, error: BaseException) -> Corrected:
    from mrcz.archive.batch import error_text
    from mrcz.errors import FormatError

    return Corrected(source, error=error_text(error, source), damaged=isinstance(error, FormatError))
