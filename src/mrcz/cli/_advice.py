"""What helps where a file was refused or failed: the words of the command line for what the library says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mrcz.archive.jobs import Result

__all__ = ["advised"]

# By `Result.reason`.
_ADVICE = {
    "exists": "-o writes elsewhere, --skip-existing leaves it, --force replaces it",
    "exists, empty": "--force replaces it",
    "same destination": "give one of them another name with -o",
    "its own destination": "-o writes a plain copy elsewhere",
    "an input": "-o writes elsewhere",
    "of another source": "-o writes elsewhere, --replace-any replaces it",
    "another file": "-o writes elsewhere",
    "contradictory": "--permissive takes the whole frames that are there",
    "trailing bytes": "--permissive drops them",
    "damaged source": "`mrcz recover` saves every whole frame, --permissive copies what is there",
    "damaged frame": "`mrcz recover` saves every whole frame",
}


def advised(result: Result) -> Result:
    """The same result, its error followed by the options that help."""
    advice = _ADVICE.get(result.reason)
    return replace(result, error=f"{result.error}; {advice}") if advice else result
