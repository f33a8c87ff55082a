"""What an archive may take of a machine that others use too: cores, memory, bytes a second, hours of the day."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace

from mrcz.archive.capacity import free_memory, usable_cores

__all__ = ["Hours", "Limits", "parse_cores", "parse_hours", "parse_rate", "parse_size"]

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_NUMBER = r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([kKMGTPmgtp]?)(i?)"
_SIZE = re.compile(_NUMBER + r"(B?)\s*", re.ASCII)
_RATE = re.compile(_NUMBER + r"(B|bit)?\s*(/\s*s)?\s*", re.ASCII)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})", re.ASCII)
_DAY = 24 * 60  # minutes
_LARGEST = 1 << 62


def parse_size(text: str) -> int:
    """Bytes: ``"4G"``, ``"4 GB"`` are 4·10⁹, ``"4GiB"`` 4·2³⁰, ``"500000"`` are bytes.

    Raises
    ------
    ValueError
    """
    found = _SIZE.fullmatch(text)
    size = _value(found) if found else 0.0
    if not 1 <= size < _LARGEST:
        raise ValueError(f"{text!r} is no size: write 800M, 4G or 4GiB")
    return int(size)


def parse_rate(text: str) -> float:
    """Bytes a second: ``"200MB/s"``, ``"200M"``, ``"1.5 GB/s"``, ``"100MiB/s"``, ``"1Gbit/s"``; ``"0"`` is no limit.

    Raises
    ------
    ValueError
        Also for ``Mb/s``, which one takes for bytes and another for bits.
    """
    found = _RATE.fullmatch(text)
    if found is None or (rate := _value(found) / (8 if found[4] == "bit" else 1)) >= _LARGEST:
        raise ValueError(f"{text!r} is no rate: write 200MB/s, or 1Gbit/s for bits; 0 is no limit")
    return rate


def _value(found: re.Match[str]) -> float:
    base: float = 1024 if found[3] else 1000
    return float(found[1]) * base ** _POWERS[found[2].lower()]


def parse_cores(text: str) -> int:
    """Cores: ``"4"``, or ``"50%"`` of those there are; at least 1.

    Raises
    ------
    ValueError
    """
    found = re.fullmatch(r"\s*(\d{1,6})\s*(%?)\s*", text, re.ASCII)
    number = int(found[1]) if found else 0
    if found is None or number < 1 or (found[2] and number > 100):
        raise ValueError(f"{text!r} is no number of cores: write 4, or 50%")
    return max(1, usable_cores() * number // 100) if found[2] else number


@dataclass(frozen=True)
class Hours:
    """A part of the day, by the clock on the wall here: from a minute of the day to the one before another.

    Attributes
    ----------
    start, stop : int
        Minutes since midnight; *stop* up to 1440. Where *stop* is not after *start* it is that of the next day.
    """

    start: int
    stop: int

    def __contains__(self, minute: int) -> bool:
        if self.start < self.stop:
            return self.start <= minute < self.stop
        return minute >= self.start or minute < self.stop

    def __str__(self) -> str:
        return "-".join(f"{minute // 60:02d}:{minute % 60:02d}" for minute in (self.start, self.stop))


def parse_hours(text: str) -> tuple[Hours, ...]:
    """Parts of the day: ``"20:00-06:00"``, ``"12:00-13:00,20:00-06:00"``.

    Raises
    ------
    ValueError
    """
    hours = []
    for part in text.split(","):
        start, dash, stop = part.replace("–", "-").partition("-")
        a, b = _minute(start), _minute(stop)
        if not dash or a is None or b is None or a == _DAY or a == b:
            raise ValueError(f"{part.strip()!r} are no hours: write 20:00-06:00, several with a comma between them")
        hours.append(Hours(a, b))
    return tuple(hours)


def _minute(text: str) -> int | None:
    found = _CLOCK.fullmatch(text.strip())
    if found is None or int(found[2]) > 59:
        return None
    minute = int(found[1]) * 60 + int(found[2])
    return minute if minute <= _DAY else None


@dataclass(frozen=True)
class Limits:
    """What all processes of an archive on one machine may take together.

    Attributes
    ----------
    cores : int or None
        None: those this process may use.
    memory : int or None
        Bytes. None: half of what is free when it is asked for.
    read_rate, write_rate : float
        Bytes a second, 0: as fast as it goes.
    nice : int
        0 to 19.
    hours : tuple of Hours
        When work may begin; empty: always.

    Raises
    ------
    ValueError
    """

    cores: int | None = None
    memory: int | None = None
    read_rate: float = 0.0
    write_rate: float = 0.0
    nice: int = 0
    hours: tuple[Hours, ...] = ()

    def __post_init__(self) -> None:
        if self.cores is not None and self.cores < 1:
            raise ValueError(f"at least 1 core is needed, got {self.cores}")
        if self.memory is not None and self.memory < 1:
            raise ValueError(f"memory must be above 0 bytes, got {self.memory}")
        for name in ("read_rate", "write_rate"):
            if not 0 <= getattr(self, name) < _LARGEST:
                raise ValueError(f"{name} is bytes a second, 0 for no limit, got {getattr(self, name)}")
        if not 0 <= self.nice <= 19:
            raise ValueError(f"nice must be 0 to 19, got {self.nice}")

    def workers(self, memory_of_one: int) -> int:
        """How many files may be worked on at a time: one a core, as far as the memory goes, and at least one.

        Parameters
        ----------
        memory_of_one : int
            Bytes of memory that storing one file takes.
        """
        memory = free_memory() // 2 if self.memory is None else self.memory
        cores = usable_cores() if self.cores is None else self.cores
        return max(1, min(cores, memory // max(1, memory_of_one)))

    def share(self, workers: int) -> Limits:
        """The part of one worker of so many: cores, memory and rates divided. None of them may borrow from another."""
        return replace(
            self,
            cores=max(1, (usable_cores() if self.cores is None else self.cores) // workers),
            memory=None if self.memory is None else max(1, self.memory // workers),
            read_rate=self.read_rate / workers,
            write_rate=self.write_rate / workers,
        )

    def outside_hours(self, now: float | None = None) -> float:
        """Seconds until work may begin; 0 within the hours.

        Whoever waits asks again every minute or so: machines sleep and clocks are set.

        Parameters
        ----------
        now : float, optional
            Seconds since 1970; default: now.
        """
        now = time.time() if now is None else now
        if not self.hours or self._is_open(now):
            return 0.0
        clock, this_minute = time.localtime(now), now // 60 * 60
        shown = clock.tm_hour * 60 + clock.tm_min
        next_start = this_minute + 60 * min((hours.start - shown) % _DAY for hours in self.hours)
        if time.localtime(next_start).tm_gmtoff == clock.tm_gmtoff:
            return next_start - now
        # Clocks are set before that. Minute by minute, asking the system what the clock on the wall shows: an hour that
        # does not exist is passed over as it is there. Two days, since one may lack the hours altogether.
        minute = this_minute + 60
        last = now + 50 * 3600
        while minute < last and not self._is_open(minute):
            minute += 60
        return minute - now

    def _is_open(self, now: float) -> bool:
        clock = time.localtime(now)
        return any(clock.tm_hour * 60 + clock.tm_min in hours for hours in self.hours)
