"""Running a plan of compressing or restoring, and reporting on it."""

from __future__ import annotations

import argparse
import os
from typing import Any

from mrcz.cli import _text
from mrcz.cli._advice import advised
from mrcz.cli._output import say, talk
from mrcz.cli._pipes import run_piped
from mrcz.cli._progress import Progress
from mrcz.cli._shared import UsageError, add_force, check_interrupted, emit, exit_code, left_out, overwriting

__all__ = ["add_batch_arguments", "check_output", "run_plan"]


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where files go and what becomes of the originals."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="file, for one input; directory, for several or if it is there or ends in / (default: beside the input)",
    )
    add_force(parser)
    parser.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave files that are there and hold the same, as done already",
    )
    parser.add_argument("--check", action="store_true", help="read every new file back and compare it bit for bit")
    parser.add_argument(
        "--remove",
        action="store_true",
        help="remove each original, after the new file was read back and found to hold the same, bit for bit",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bar, no summary")


def check_output(action: str, output: str | None) -> None:
    """Refuse ``-o`` a name that says that the new file is what it is not: a plain name of what is compressed, and the
    other way round. A folder may be called anything.

    Raises
    ------
    UsageError
    """
    from mrcz.container.names import compressed_name
    from mrcz.filetypes import MRC_SUFFIXES

    if output is None or output == "-" or output.endswith(("/", os.sep)) or os.path.isdir(output):
        return
    suffix = os.path.splitext(output)[1].lower()
    if action == "compress" and suffix in MRC_SUFFIXES:
        better = compressed_name(output)
        raise UsageError(
            f"{output} is the name of a plain file, for which other programs would take it: -o {better} makes a "
            "compressed one, mrcz decompress a plain one"
        )
    if action == "decompress" and suffix == ".mrcz":
        plain = os.path.splitext(output)[0]
        plain += "" if plain.lower().endswith(MRC_SUFFIXES) else ".mrc"
        raise UsageError(
            f"{output} is the name of a compressed file: -o {plain} makes a plain one, mrcz compress a compressed one"
        )


def run_plan(action: str, args: argparse.Namespace, options: dict[str, Any]) -> int:
    """Plan, run and report `action` on ``args.inputs``; return the exit code."""
    from mrcz.archive.jobs import Job, Result
    from mrcz.archive.plan import plan as make_plan
    from mrcz.archive.run import run as run_jobs

    if "-" in args.inputs or args.output == "-":
        return run_piped(action, args, options)
    try:
        plan = make_plan(
            action,
            args.inputs,
            output=args.output,
            recursive=args.recursive,
            foreign=getattr(args, "foreign", False),
            overwrite=overwriting(args),
            skip_existing=args.skip_existing,
            remove=args.remove,
            options={**options, "check": args.check},
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    results: list[Result] = []

    def report(result: Result) -> None:
        result = advised(result)
        results.append(result)
        bar.clear()
        if args.json:
            fields = result.asdict()
            fields["frames"] = fields.pop("n_frames")
            emit(fields)
        elif result.ok:
            say(_result_line(result))
        if not result.ok:
            talk(f"mrcz: {result.source}: {result.error}")

    def advance(job: Job, done: int, total: int) -> None:
        check_interrupted()
        bar.update(job.source, done, total)

    bar = Progress(len(plan.jobs), quiet=args.quiet)
    try:
        for result in plan.refused:
            report(result)
        if args.dry_run:
            for job in plan.jobs:
                report(Result(job.action, job.source, job.destination, "planned"))
        else:
            for result in run_jobs(plan.jobs, progress=advance):
                report(result)
                check_interrupted()
    finally:
        bar.clear()
    left = left_out(plan.left_out, args)
    if (len(results) > 1 or left) and not args.quiet:
        talk("; ".join([_summary(results), *([left] if left else [])]))
    return exit_code(results)


def _result_line(result: Any) -> str:
    line = f"{result.source} -> {result.destination}"
    if result.status == "planned":
        return line
    if result.status == "skipped":
        return f"{result.source}: skipped, {result.error}"
    before, after = result.source_bytes, result.destination_bytes
    line += f"  {_text.size(before)} -> {_text.size(after)}  {_ratio(result.action, before, after)}"
    line += f"  {_text.duration(result.seconds)}"
    if result.removed:
        line += "  checked, original removed"
    elif result.checked:
        line += "  checked"
    return "; ".join([line, *result.notes])


def _ratio(action: str, before: int, after: int) -> str:
    """How many times smaller the compressed one is; of bytes on disk, so that what was gzipped can come out larger."""
    if action == "decompress":
        return _text.ratio(after, before)
    return _text.ratio(before, after) + (" (larger)" if after > before else "")


def _summary(results: list[Any]) -> str:
    done = [result for result in results if result.status == "done"]
    planned = sum(result.status == "planned" for result in results)
    parts = []
    if done:
        before, after = sum(r.source_bytes for r in done), sum(r.destination_bytes for r in done)
        parts.append(
            f"{_text.plural(len(done), 'file')}, {_text.size(before)} -> {_text.size(after)} on disk, "
            f"{_ratio(done[0].action, before, after)}, {_text.duration(sum(r.seconds for r in done))}"
        )
    if planned:
        parts.append(f"{_text.plural(planned, 'file')} to do")
    for status, word in (("skipped", "skipped"), ("refused", "refused"), ("failed", "failed")):
        count = sum(result.status == status for result in results)
        if count:
            parts.append(f"{count} {word}")
    return "mrcz: " + "; ".join(parts)
