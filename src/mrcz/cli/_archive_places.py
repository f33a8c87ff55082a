"""Where an archive goes and who does the work, as arguments: object stores, and clusters."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrcz.cli._shared import UsageError

if TYPE_CHECKING:
    from mrcz.archive.local import Executor
    from mrcz.archive.objects import ObjectStore
    from mrcz.archive.task import Options
    from mrcz.archive.uploading import Mirror

__all__ = ["Where", "add_arguments", "add_storage_options", "archive_from", "executor_from", "place_from"]

_OPTIONS = "MRCZ_STORAGE_OPTIONS"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--dask``, ``--storage-options``, ``--journal`` and ``--staging``."""
    beyond = parser.add_argument_group("beyond one machine")
    beyond.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="store the files on a dask cluster whose workers see SRC and DST under these names: the address of its "
        "scheduler, or local for processes on this machine",
    )
    add_storage_options(beyond)
    beyond.add_argument(
        "--journal",
        metavar="FILE",
        help="DST is a URL: the journal on this machine, of which a copy goes up (default: below ~/.local/state/mrcz)",
    )
    beyond.add_argument(
        "--staging",
        metavar="FOLDER",
        help="DST is a URL: where files are made and proven before they are sent, on each worker (default: beside the "
        "journal)",
    )


def add_storage_options(parser: Any) -> None:
    """Add ``--storage-options``."""
    parser.add_argument(
        "--storage-options",
        metavar="JSON",
        help=f"DST is a URL: what fsspec is to know of it, such as an endpoint; @FILE is read (default: ${_OPTIONS})",
    )


@dataclass(frozen=True)
class Where:
    """Where an archive grows.

    Attributes
    ----------
    root : str
        The archive, or the staging folder of one in an object store.
    place : ObjectStore or None
        None: the folder itself.
    journal : Path or None
        Where the journal lies, if not in `root`.
    staging : str or None
        The folder that workers make theirs in.
    mirror : Mirror or None
        To `begin`, then `clean` once the journal is open, `tick` now and then, `sync` at the end.
    """

    root: str
    place: ObjectStore | None = None
    journal: Path | None = None
    staging: str | None = None
    mirror: Mirror | None = None


def place_from(args: argparse.Namespace, destination: str) -> Where:
    """Where the archive grows that is called `destination`.

    Raises
    ------
    UsageError
        An option makes no sense there.
    MrczError
    """
    from mrcz.storage.remote import is_url

    if not is_url(destination):
        for name in ("storage_options", "journal", "staging"):
            if getattr(args, name, None) is not None:
                raise UsageError(f"--{name.replace('_', '-')} is for archives at a URL, and {destination} is a folder")
        return Where(os.path.abspath(destination))

    from mrcz.archive.objects import ObjectStore
    from mrcz.archive.uploading import Mirror, staging_of, state_folder

    place = ObjectStore(destination, _storage_options(getattr(args, "storage_options", None)))
    state = state_folder(place.url)
    journal = Path(args.journal) if getattr(args, "journal", None) else state / "journal.jsonl"
    staging = os.path.abspath(getattr(args, "staging", None) or state / "staging")
    root = staging_of(staging, place.url)
    return Where(str(root), place, journal, staging, Mirror(place, root, journal))


def archive_from(args: argparse.Namespace, name: str) -> str | ObjectStore:
    """An archive that is read: a folder, or a place in an object store, of which the journal's copy there counts."""
    from mrcz.storage.remote import is_url

    if not is_url(name):
        if getattr(args, "storage_options", None) is not None:
            raise UsageError(f"--storage-options is for archives at a URL, and {name} is a folder")
        return name

    from mrcz.archive.objects import ObjectStore

    return ObjectStore(name, _storage_options(getattr(args, "storage_options", None)))


def _storage_options(text: str | None) -> dict[str, Any]:
    text = os.environ.get(_OPTIONS) if text is None else text
    if not text:
        return {}
    if text.startswith("@"):  # keys on a command line can be read by everybody on the machine
        text = Path(text[1:]).read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--storage-options is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise UsageError('--storage-options is no JSON object, such as {"client_kwargs": {"endpoint_url": "http://…"}}')
    return found


def executor_from(
    args: argparse.Namespace,
    options: Options,
    top: str,
    where: Where,
    *,
    workers: int,
    flow: Callable[[Options], Any] | None = None,
) -> Executor:
    """Who stores the files.

    Parameters
    ----------
    args : argparse.Namespace
    options : Options
    top : str
        The source.
    where : Where
    workers : int
        Files at a time on this machine.
    flow : callable, optional
        ``flow(options)``: what slows down a process. It is sent to workers, so it is a function of a module.
    """
    work = None
    if where.place is not None:
        from mrcz.archive.uploading import Upload

        work = Upload(where.place, where.staging)
    if getattr(args, "dask", None):
        if args.dask != "local" and re.fullmatch(r"(?:[a-z+]+://)?.+:[0-9]{1,5}/?", args.dask) is None:
            # distributed would take a minute to say so
            raise UsageError(f"--dask {args.dask}: write local, or where a scheduler is: tcp://host:8786")
        from mrcz.archive.dask import DaskExecutor
        from mrcz.archive.local import Late
        from mrcz.errors import MissingDependencyError

        # The folder for staging is each worker's own: nobody else has to see it.
        root = where.root if where.place is None else None
        make = partial(
            DaskExecutor, args.dask, store=work, top=top, root=root, options=options, flow=flow, workers=workers
        )
        if args.dask != "local":  # one that is not there, or does not see the folders, is told before anything is done
            return make()
        if find_spec("distributed") is None:
            raise MissingDependencyError("a cluster needs dask: pip install 'mrcz[cluster]'")
        if getattr(args, "watch", False):  # a movie that comes is not to wait for it
            return make()
        return Late(make, max(32, 3 * workers))

    from mrcz.archive.local import Threads
    from mrcz.archive.store import store

    return Threads(workers, None if flow is None else flow(options), work or store)
