"""Names, plan, jobs, results: the rooms of this folder in the order in which a batch of files goes through them.

`plan` only looks at names and at what exists; `run` does the work. Between the two stands a list of picklable `Job`
objects that can be printed, sorted, cut in pieces or sent elsewhere. A file that fails is a `Result` that says why; it
never stops the others.

This is the public name of it, for programs (docs/tutorials/archive.md): one import has all they need, and what is in
which room may change. Inside the package the rooms are imported themselves.
"""

from mrcz.archive.jobs import Job, Result, error_text
from mrcz.archive.plan import Plan, plan
from mrcz.archive.run import run, run_job
from mrcz.archive.walk import SET_ASIDE, UNFINISHED, LeftOut, expand
from mrcz.filetypes import MRC_SUFFIXES

__all__ = [
    "MRC_SUFFIXES",
    "SET_ASIDE",
    "UNFINISHED",
    "Job",
    "LeftOut",
    "Plan",
    "Result",
    "error_text",
    "expand",
    "plan",
    "run",
    "run_job",
]
