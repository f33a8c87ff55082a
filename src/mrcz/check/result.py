"""What all results have in common, whatever was done to a file: checked, described, copied, saved, corrected."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any

__all__ = ["Result"]


class Result:
    """The base of every result: a frozen dataclass that says whether all went well, and what there is to add.

    Counts are called ``n_…`` (``n_frames``), sizes in bytes ``…_bytes`` (``file_bytes``).

    Attributes
    ----------
    ok : bool
        Whether nothing is wrong; each result says with what.
    notes : tuple of str
        What is unusual and no fault.
    """

    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        raise NotImplementedError

    def asdict(self) -> dict[str, Any]:
        """``ok`` and every field, as plain values that JSON can say."""
        if not is_dataclass(self) or isinstance(self, type):
            raise TypeError(f"{type(self).__name__} is no dataclass")
        return {"ok": self.ok, **asdict(self)}
