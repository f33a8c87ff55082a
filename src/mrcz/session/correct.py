"""Corrections of files: `mrcz.correct` corrects arrays; here they are read and written, frame by frame, so that a stack
need never fit in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict, Unpack

import numpy as np

from mrcz.archive.jobs import error_text
from mrcz.check.origin import Overwrite, check_replaceable, replacing
from mrcz.check.result import Result
from mrcz.container.names import check_new_name
from mrcz.correct import (
    Correction,
    EventModel,
    KomaReference,
    SessionStatistics,
    correlation_report,
    fit_outliers,
    stack_moments,
)
from mrcz.errors import FormatError, MrczError
from mrcz.file.calls import open_reader
from mrcz.file.codec import Codec
from mrcz.file.original import Progress
from mrcz.file.reader import Reader
from mrcz.file.writer import Writer
from mrcz.session.references import save_image, save_mask
from mrcz.storage.disk import is_same_place
from mrcz.storage.whole import Judge

__all__ = [
    "PRODUCTS",
    "Corrected",
    "Fitting",
    "as_metadata",
    "clear_to_write",
    "correct_file",
    "correct_opened",
    "destination",
    "failed",
    "frame_shape",
    "gather_statistics",
]

#: What can be written, and what its name ends in.
PRODUCTS = {"stack": "_corrected.mrcz", "sum": "_sum.mrc", "mask": "_mask.mrc"}

#: Pixels of events that are listed in the metadata of a corrected stack, 0.8 MB; of more only their number is told.
MOST_EVENTS = 1 << 16


@dataclass(frozen=True)
class Corrected(Result):
    """What became of one stack.

    Attributes
    ----------
    source : str
    destinations : tuple of str
        What was written.
    report : dict
        Numbers of the stack: ``frames``, those of `OutlierModel.report`, ``events``, R if measured.
    correction : Correction or None
        What was applied.
    error : str or None
    damaged : bool
        The error is in the bytes of the file.
    notes : tuple of str
    """

    source: str
    destinations: tuple[str, ...] = ()
    report: dict[str, Any] = field(default_factory=dict)
    correction: Correction | None = field(default=None, repr=False)
    error: str | None = None
    damaged: bool = False
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all went well."""
        return self.error is None

    @property
    def n_frames(self) -> int:
        """Frames of the stack; 0 where it was not read."""
        return int(self.report.get("frames", 0))

    def asdict(self) -> dict[str, Any]:
        """Plain values, for JSON; the numbers of the report among them."""
        found = {"ok": self.ok, "source": self.source, "destinations": list(self.destinations), "error": self.error}
        return {**found, "notes": list(self.notes), **self.report}


class Fitting(TypedDict, total=False):
    """What `Correction.fit` takes, for those who pass it on: references, how outliers are found, and how filled."""

    method: str | None
    dark: np.ndarray | None
    gain: np.ndarray | None
    gamma: float
    defects: np.ndarray | None
    events: bool | EventModel
    noise: bool
    seed: int
    alpha: float
    n_sigma: float
    steepness: float | None
    relax: float | None
    fallback: str
    surroundings: bool
    background: bool
    filter_structure: bool
    super_resolution: int
    kernel: np.ndarray | float | None


def destination(source: str, product: str, folder: str | None = None, suffix: str | None = None) -> str:
    """Where ``product`` of ``source`` goes: beside it or into ``folder``, ``movie.mrcz`` → ``movie_sum.mrc``."""
    from mrcz.filetypes import plain_name

    stem = os.path.splitext(plain_name(os.path.basename(source)))[0]
    base, usual = os.path.splitext(PRODUCTS[product])
    return os.path.join(os.path.dirname(source) if folder is None else folder, stem + base + (suffix or usual))


def as_metadata(correction: Correction) -> dict[str, Any]:
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


# Longer than 60 lines: half of it are its words.
def correct_file(
    source: str | os.PathLike[str],
    destinations: Mapping[str, str] | None = None,
    *,
    koma: np.ndarray | KomaReference | None = None,
    measure: bool = False,
    mask_style: str | None = None,
    overwrite: Overwrite = False,
    codec: str | Codec | None = None,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
    storage_options: dict[str, Any] | None = None,
    dataset: str | None = None,
    fraction: int | None = None,
    upsampling: int = 1,
    **fit: Unpack[Fitting],
) -> Corrected:
    """Fit a correction to a stack and write what was asked for.

    Parameters
    ----------
    source : path or URL
        MRC or MRCZ, or of another format that `mrcz.open` reads.
    destinations : mapping, optional
        Product ("stack", "sum", "mask") → path. None: nothing is written.
    koma : ndarray (ny, nx) or KomaReference, optional
        The pattern to subtract, as `Correction.fit` takes it.
    measure : bool
        R before and after, in-sample and held out, into the report; reads the stack four more times.
    mask_style : str, optional
        Of a mask written as text: "relion" (default) or "serialem".
    overwrite : bool or "any"
        True replaces files that are there, but no archive of another file; "any" these too. Never the source.
    codec : str or Codec, optional
        Of the corrected stack, as `mrcz.write` takes it.
    permissive, signed_bytes, n_threads, storage_options, dataset, fraction, upsampling
        As `mrcz.open` takes them.
    progress : callable, optional
        ``progress(done, total)`` in frames.
    **fit
        Of `Correction.fit`: see `Fitting`.

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
    clear_to_write([name], destinations or {}, overwrite)
    with open_reader(
        name,
        permissive=permissive,
        signed_bytes=signed_bytes,
        n_threads=n_threads,
        storage_options=storage_options,
        dataset=dataset,
        fraction=fraction,
        upsampling=upsampling,
    ) as reader:
        made = correct_opened(
            reader,
            destinations,
            koma=koma,
            measure=measure,
            mask_style=mask_style,
            overwrite=overwrite,
            codec=codec,
            progress=progress,
            **fit,
        )
    return replace(made, source=name)


def correct_opened(
    reader: Reader,
    destinations: Mapping[str, str] | None = None,
    *,
    koma: np.ndarray | KomaReference | None = None,
    measure: bool = False,
    mask_style: str | None = None,
    overwrite: Overwrite = False,
    codec: str | Codec | None = None,
    progress: Progress | None = None,
    **fit: Unpack[Fitting],
) -> Corrected:
    """`correct_file` for a stack that is open already; whoever opened it has asked `clear_to_write`, and closes it.

    Everything is done on the threads that the reader may use.
    """
    outputs, n_threads = dict(destinations or {}), reader.n_threads
    correction = Correction.fit(reader, koma=koma, n_threads=n_threads, **fit)
    report: dict[str, Any] = {"frames": int(reader.shape[0])}
    if correction.outliers is not None:
        report.update(correction.outliers.report())
    if correction.events is not None:
        report["events"] = correction.events.report()
    if measure:
        report.update(_measure(reader, correction, fit))
    _Products(outputs, replacing(overwrite), codec, mask_style, n_threads).write(reader, correction, progress)
    return Corrected(reader.path, tuple(outputs.values()), report, correction)


def clear_to_write(sources: Iterable[str], outputs: Mapping[str, str], overwrite: Overwrite) -> None:
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
    if correction.unusable is not None:
        defects = correction.unusable if defects is None else correction.unusable | (np.asarray(defects) != 0)
    plain = correction.gain is None and correction.dark is None and correction.events is None
    seen = reader if plain else _Normalised(reader, correction)
    pattern = None if correction.koma is None else np.asarray(correction.koma)
    return correlation_report(
        seen, correction.outliers, lambda half: fit_outliers(half, defects=defects, **options), pattern=pattern
    )


@dataclass(frozen=True)
class _Products:
    """What is written of a corrected stack, where, and how."""

    outputs: Mapping[str, str]
    overwrite: bool | Judge
    codec: str | Codec | None
    mask_style: str | None
    n_threads: int | None

    def write(self, reader: Reader, correction: Correction, progress: Progress | None) -> None:
        n_frames = int(reader.shape[0])
        total = self._write_stack(reader, correction, progress) if "stack" in self.outputs else None
        if "sum" in self.outputs:
            if total is None:
                total = correction.correct_sum(reader.sum(n_threads=self.n_threads), n_frames)
            _save(self.outputs["sum"], total.astype(np.float32), reader, self.overwrite)
        if "mask" in self.outputs and correction.outliers is not None:
            mask = correction.outliers.mask
            save_mask(self.outputs["mask"], mask, style=self.mask_style, overwrite=self.overwrite)
        if progress:
            progress(n_frames, n_frames)

    def _write_stack(self, reader: Reader, correction: Correction, progress: Progress | None) -> np.ndarray | None:
        """The stack, frame by frame; their sum, where that is wanted too."""
        total: np.ndarray | None = None
        with Writer(
            self.outputs["stack"],
            codec=self.codec,
            dtype=np.float32,
            header=reader.header,
            metadata={**_dict(reader.metadata), "correction": as_metadata(correction)},
            overwrite=self.overwrite,
            n_threads=self.n_threads,
        ) as writer:
            for number, frame in enumerate(correction.frames(reader)):
                writer.append(frame)
                if "sum" in self.outputs:
                    total = frame.astype(np.float64) if total is None else np.add(total, frame, out=total)
                if progress:
                    progress(number + 1, len(reader))
        return total


def _save(path: str, image: np.ndarray, reader: Any, overwrite: bool | Judge) -> None:
    size = reader.pixel_size
    known = size is not None and np.all(np.asarray(size, float) > 0)
    pixel_size = float(np.asarray(size, float).reshape(-1)[0]) if known else None
    save_image(path, image, pixel_size=pixel_size, overwrite=overwrite)


def _dict(metadata: Any) -> dict[str, Any]:
    return dict(metadata) if isinstance(metadata, Mapping) else {}


# Longer than 60 lines: half of it are its words.
def gather_statistics(
    sources: Iterable[str],
    statistics: SessionStatistics,
    *,
    dark: np.ndarray | None = None,
    gain: np.ndarray | None = None,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    n_threads: int | None = None,
    storage_options: dict[str, Any] | None = None,
    dataset: str | None = None,
    fraction: int | None = None,
    upsampling: int = 1,
) -> Iterator[Corrected]:
    """Add stacks to the statistics of a session, each read once; their outliers are found by ``fdr`` and counted.

    Parameters
    ----------
    sources : iterable of str
    statistics : SessionStatistics
        Added to.
    dark, gain : ndarray (ny, nx), optional
        References with which outliers are looked for; the statistics are of what was recorded.
    permissive, signed_bytes, n_threads, storage_options, dataset, fraction, upsampling
        As `mrcz.open` takes them.

    Yields
    ------
    Corrected
        What each stack held; one that cannot be read or has another shape is no part of the session.
    """
    for source in sources:
        try:
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
                moments = stack_moments(reader, n_threads=n_threads)
            if moments.total.shape != statistics.shape:
                raise ValueError(f"frames of {moments.total.shape} in a session of {statistics.shape}")
            pattern = None if dark is None else np.asarray(dark, np.float64) * moments.frames
            model = fit_outliers(moments.total, gain=gain, dark=pattern, n_threads=n_threads)
            statistics.add(moments, flags=model.mask, n_threads=n_threads)
        except (OSError, MrczError, ValueError, TypeError) as error:
            yield failed(source, error)
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


def failed(source: str, error: BaseException) -> Corrected:
    """The result of a stack that could not be read or corrected."""
    return Corrected(source, error=error_text(error, source), damaged=isinstance(error, FormatError))


def frame_shape(
    sources: Iterable[str],
    *,
    permissive: bool = False,
    signed_bytes: bool | None = None,
    dataset: str | None = None,
    fraction: int | None = None,
    upsampling: int = 1,
) -> tuple[str, tuple[int, int]] | None:
    """The first stack that can be opened, and (ny, nx) of its frames: what references have to fit; None if none can."""
    for source in sources:
        try:
            with open_reader(
                source,
                permissive=permissive,
                signed_bytes=signed_bytes,
                dataset=dataset,
                fraction=fraction,
                upsampling=upsampling,
            ) as reader:
                return source, (int(reader.shape[1]), int(reader.shape[2]))
        except (OSError, MrczError):
            continue  # whoever corrects it will say what is wrong with it
    return None
