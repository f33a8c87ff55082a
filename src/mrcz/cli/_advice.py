"""What helps where a file was refused or failed: the words of the command line for what the library says."""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mrcz.archive.jobs import Result

__all__ = ["RECURSIVE", "advised", "as_options"]

RECURSIVE = "-r takes the files in it"

# By `Result.reason`.
_ADVICE = {
    "directory": RECURSIVE,
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
    if result.error and "dtype='" in result.error:
        result = replace(result, error=re.sub(r"dtype='(\w+)'", r"--dtype \1", result.error))
    return replace(result, error=f"{result.error}; {advice}") if advice else result


def as_options(text: str) -> str:
    """The same text with every call of `mrcz.edit_header` in it, between backquotes, as ``mrcz header --set``."""
    return re.sub(r"`edit_header\(path, (.*?)\)`", lambda found: f"`mrcz header {_settings(found[1])}`", text)


def _settings(arguments: str) -> str:
    call = ast.parse(f"edit_header({arguments})", mode="eval").body
    assert isinstance(call, ast.Call)
    return " ".join(
        "--set " + shlex.quote(f"{str(word.arg).replace('_', '-')}={_shown(ast.literal_eval(word.value))}")
        for word in call.keywords
    )


def _shown(value: object) -> str:
    """A value as ``--set`` takes it; one that is left to the reader (``...``) as nothing."""
    if value is ...:
        return ""
    if isinstance(value, bytes):
        return value.hex()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
