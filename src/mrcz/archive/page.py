"""The report of an archive as one page of HTML: plots are SVG in the page, there is no script, and nothing is fetched.

What stands in a journal was chosen by others, names of files above all. All of it goes through `_text`: it is made
printable, and then escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from math import ceil, floor, log10

from mrcz.archive.journal import FOLDER, Journal
from mrcz.archive.place import Place
from mrcz.archive.report import Session, Summary, summarize
from mrcz.archive.status import OTHERS, Status, Sum
from mrcz.archive.words import counted, size, times
from mrcz.errors import printable

__all__ = ["PAGE", "SUMMARY", "page", "write_report"]

#: The reports, in the archive's own folder.
PAGE = "report.html"
SUMMARY = "summary.json"

_WIDTH = 760  # units of a plot
_LEFT, _RIGHT = 64, 14
_BARS = 20  # formats
_COLUMNS = 60  # of days, at most
_STEPS = 120  # of time
_ROWS = 500  # sessions

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --fore: #1b1b1b; --soft: #5a5a5a; --line: #d4d4d4; --tile: #f3f4f6;
  --one: #0072b2; --two: #b34f00; --bad: #b00020; }
@media (prefers-color-scheme: dark) { :root { --back: #15181b; --fore: #e9e9e9; --soft: #a9adb2; --line: #3a3f45;
  --tile: #20252a; --one: #56b4e9; --two: #f0a030; --bad: #ff8a80; } }
body { background: var(--back); color: var(--fore); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 60rem; padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p { margin: .3rem 0; } .soft, figcaption { color: var(--soft); font-size: .9rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.tiles div { background: var(--tile); border-radius: .5rem; flex: 1 1 8rem; padding: .6rem .9rem; }
.tiles b { display: block; font-size: 1.35rem; } .bad { color: var(--bad); }
figure { margin: 0; } svg { display: block; height: auto; width: 100%; }
svg text { fill: var(--fore); font-size: 13px; }
svg .soft { fill: var(--soft); } svg line { stroke: var(--line); } .one { fill: var(--one); } .two { fill: var(--two); }
.key svg { display: inline; width: .7em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; }
td.long { min-width: 9rem; overflow-wrap: anywhere; } td.n, th.n { text-align: right; white-space: nowrap; }
"""


def write_report(place: Place, journal: Journal) -> Summary:
    """Make ``mrcz-archive/summary.json`` and ``mrcz-archive/report.html`` of an archive anew.

    Raises
    ------
    OSError, MrczError
        Each is whole, or as it was.
    """
    summary = summarize(journal, place.name)
    place.write(f"{FOLDER}/{SUMMARY}", summary.to_json())
    place.write(f"{FOLDER}/{PAGE}", page(summary).encode("utf-8"))
    return summary


def page(summary: Summary) -> str:
    """A whole page of HTML, to be encoded as UTF-8."""
    holds, total = summary.holds, summary.holds.total
    troubles = sum(one.files for one in holds.troubles)
    tiles = [
        (f"{total.files:,}", "files"),
        (size(total.source_bytes), "before"),
        (size(total.stored_bytes), "in the archive"),
        (times(total.ratio), "times smaller"),
        (f'<span class="bad">{troubles:,}</span>' if troubles else "0", "not stored"),
    ]
    written = f"Written from {_text(summary.first)} to {_text(summary.last)}. " if summary.first else ""
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        # No script and no address works in this page, whatever should get into it.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(summary.archive)}: archive</title><style>{_STYLE}</style></head><body>",
        f'<h1>Archive {_text(summary.archive)}</h1><p class="soft">{written}All times and days are UTC.</p>',
        '<div class="tiles">' + "".join(f"<div><b>{value}</b>{name}</div>" for value, name in tiles) + "</div>",
        *_notes(holds),
        *_section("Not stored, or not as they are now", _troubles(holds)),
        *_section("How many times smaller, by format", _bars(holds.groups["format"], "other files", "by format")),
        *_section("By camera", _bars(_known(holds.groups["camera"]), "not known", "by camera")),
        *_section("By day of recording", _by_day(holds.groups["day"])),
        *_section("Throughput", _flow(summary)),
        *_section("Sessions", _sessions(summary.sessions)),
        f'<p class="soft">Made by {_text(summary.made_by)} at {_text(summary.made)} from the journal.</p>',
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _text(text: object) -> str:
    """Text from a journal in HTML: between tags, and in quoted attributes."""
    return html.escape(printable(text), quote=True)


def _section(title: str, content: str) -> list[str]:
    return [f"<h2>{title}</h2>", content] if content else []


def _notes(holds: Status) -> list[str]:
    notes = []
    if holds.links or holds.folders:
        entries = f"{counted(holds.links, 'link')} and {counted(holds.folders, 'empty folder')}"
        notes.append(f"{entries} are written down in the journal.")
    if holds.pixels_only:
        notes.append(f"Of {holds.pixels_only:,} files the pixels and metadata are given back, not the very bytes.")
    if holds.damaged_lines:
        notes.append(f'<span class="bad">{len(holds.damaged_lines):,} lines of the journal are damaged.</span>')
    return [f"<p>{note}</p>" for note in notes]


# --- tables


def _table(head: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """A table; of each column its title, and what it holds: ``"n"`` numbers, ``"long"`` names. Cells are HTML."""
    classes = [f' class="{kind}"' if kind else "" for _, kind in head]
    top = "".join(f"<th{kind}>{title}</th>" for kind, (title, _) in zip(classes, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(classes, row, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>'


def _troubles(holds: Status) -> str:
    rows = []
    for one in holds.troubles[:100]:
        examples = "<br>".join(f"{_text(source)}: {_text(error[:300])}" for source, error in one.examples)
        rows.append((_text(one.event), _text(one.reason[:40]) or "-", f"{one.files:,}", examples))
    if not rows:
        return ""
    made = _table([("", ""), ("reason", ""), ("files", "n"), ("for example", "long")], rows)
    left = holds.troubles[100:]
    return made + (f"<p>And {len(left):,} more reasons.</p>" if left else "")


def _sessions(sessions: dict[str, Session]) -> str:
    if not sessions:
        return ""
    shown = sorted(sessions.items(), key=lambda item: item[1].archived, reverse=True)
    rows = []
    for name, one in sorted(shown[:_ROWS]):
        recorded = one.first if one.first == one.last else f"{one.first} to {one.last}"
        bad = f'<span class="bad">{one.troubles:,}</span>' if one.troubles else "0"
        rows.append(
            (
                _text(name) or "-",
                _text(recorded) or "-",
                _text(one.archived) or "-",
                f"{one.files:,}",
                size(one.source_bytes),
            )
            + (size(one.stored_bytes), times(one.ratio), bad)
        )
    head = [("session", "long"), ("recorded", ""), ("last archived", ""), ("files", "n"), ("before", "n")]
    made = _table([*head, ("archived", "n"), ("ratio", "n"), ("not stored", "n")], rows)
    if len(shown) > _ROWS:
        rest = _added(one for _, one in shown[_ROWS:])
        made += (
            f"<p>And {len(shown) - _ROWS:,} earlier sessions: {rest.files:,} files, {size(rest.source_bytes)} in "
            f"{size(rest.stored_bytes)}. summary.json has them all.</p>"
        )
    return made


# --- plots


def _added(sums: Iterable[Sum]) -> Sum:
    """The sum of sums."""
    made = Sum()
    for one in sums:
        made.files += one.files
        made.source_bytes += one.source_bytes
        made.stored_bytes += one.stored_bytes
    return made


def _known(groups: dict[str, Sum]) -> dict[str, Sum]:
    """Groups of which at least one has a name; otherwise there is nothing to show."""
    return groups if any(groups) else {}


def _ticks(top: float, about: int = 4) -> list[float]:
    """Round numbers from 0 to one that is not below *top*."""
    if not top > 0:
        return [0.0, 1.0]
    step = 10.0 ** floor(log10(top / about))
    step *= next((factor for factor in (1, 2, 5) if top / (step * factor) <= about), 10)
    return [step * number for number in range(ceil(top / step - 1e-9) + 1)]


def _svg(height: float, title: str, content: Iterable[str], caption: str = "") -> str:
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {height:g}" role="img" aria-label="{_text(title)}">'
        + "".join(content)
        + f"</svg>{below}</figure>"
    )


def _bars(groups: dict[str, Sum], unknown: str, title: str) -> str:
    """A bar for each group, as long as it became smaller; the largest groups first."""
    ordered = sorted(groups.items(), key=lambda item: (-item[1].source_bytes, item[0]))
    if len(ordered) > _BARS:
        ordered = [*ordered[:_BARS], (OTHERS, _added(one for _, one in ordered[_BARS:]))]
    if not ordered:
        return ""
    left, right, row = 150, 250, 30
    most = max(1.0, *(one.ratio for _, one in ordered))
    room = _WIDTH - left - right
    parts = []
    for i, (name, one) in enumerate(ordered):
        y = i * row
        shown = printable(name) or unknown
        shown = shown if len(shown) <= 18 else shown[:17] + "…"
        width = room * one.ratio / most
        label = f"{times(one.ratio)}, {counted(one.files, 'file')}, {size(one.source_bytes)}"
        parts.append(
            f"<g><title>{_text(name)}: {size(one.source_bytes)} in {size(one.stored_bytes)}</title>"
            f'<text x="{left - 8}" y="{y + 19}" text-anchor="end">{_text(shown)}</text>'
            f'<rect class="one" x="{left}" y="{y + 5}" width="{width:.1f}" height="{row - 10}" rx="2"/>'
            f'<text x="{left + width + 8:.1f}" y="{y + 19}">{label}</text></g>'
        )
    return _svg(row * len(ordered), f"How many times smaller, {title}", parts)


class _Axes:
    """The frame of a plot with columns: an axis of numbers to the left, and names below."""

    height, top, bottom = 240, 24, 30

    def __init__(self, most: float, columns: int, unit: str) -> None:
        self.ticks = _ticks(most)
        self.most = self.ticks[-1]
        self.step = (_WIDTH - _LEFT - _RIGHT) / columns
        self.parts = [f'<text class="soft" x="{_LEFT}" y="12">{unit}</text>']
        for tick in self.ticks:
            y = self.y(tick)
            self.parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.parts.append(f'<text class="soft" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')

    def y(self, value: float) -> float:
        """Where a value stands."""
        return self.top + (self.height - self.top - self.bottom) * (1 - value / self.most)

    def column(
        self, i: int, value: float, title: str, *, kind: str = "one", part: float = 0.8, at: float = 0.1
    ) -> None:
        """A column; `part` and `at` of the room that it has."""
        x, y = _LEFT + (i + at) * self.step, self.y(value)
        height = max(0.0, self.y(0) - y)
        self.parts.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(0.5, self.step * part):.1f}" '
            f'height="{height:.1f}"><title>{_text(title)}</title></rect>'
        )

    def names(self, names: Sequence[str]) -> None:
        """As many names of columns as there is room for."""
        until = 0.0
        for i, name in enumerate(names):
            half = 4.0 * len(name)  # about half of its width
            x = min(max(_LEFT + (i + 0.5) * self.step, half), _WIDTH - half)
            if x - half >= until:
                self.parts.append(
                    f'<text class="soft" x="{x:.1f}" y="{self.height - 8}" text-anchor="middle">{_text(name)}</text>'
                )
                until = x + half + 16


def _by_day(days: dict[str, Sum]) -> str:
    known = [(name, one) for name, one in sorted(days.items()) if name and name != OTHERS]
    if not known:
        return ""
    together = ceil(len(known) / _COLUMNS)
    groups: list[tuple[str, str, Sum]] = []
    for i in range(0, len(known), together):
        part = known[i : i + together]
        groups.append((part[0][0], part[-1][0], _added(one for _, one in part)))
    names = [first for first, _, _ in groups]
    ratios = _Axes(max(one.ratio for _, _, one in groups), len(groups), "times smaller")
    unit, scale = _unit(max(max(one.source_bytes, one.stored_bytes) for _, _, one in groups))
    sizes = _Axes(max(max(one.source_bytes, one.stored_bytes) for _, _, one in groups) / scale, len(groups), unit)
    for i, (first, last, one) in enumerate(groups):
        when = first if first == last else f"{first} to {last}"
        amount = f"{size(one.source_bytes)} in {size(one.stored_bytes)}, {times(one.ratio)}"
        label = f"{when}: {counted(one.files, 'file')}, {amount}"
        ratios.column(i, one.ratio, label)
        sizes.column(i, one.source_bytes / scale, label, kind="two", part=0.4)
        sizes.column(i, one.stored_bytes / scale, label, part=0.4, at=0.5)
    ratios.names(names)
    sizes.names(names)
    unknown = sum(one.files for name, one in days.items() if not name or name == OTHERS)
    caption = "By the times of the files" + (f"; each column is {together} days with files" if together > 1 else "")
    caption += f". {unknown:,} files are of no day that is known or shown." if unknown else "."
    caption = f"{_key('two', 'before')}, {_key('one', 'in the archive')}. {caption}"
    return _svg(ratios.height, "How many times smaller, by day", ratios.parts) + _svg(
        sizes.height, "Sizes by day", sizes.parts, caption
    )


def _key(kind: str, what: str) -> str:
    """What a colour means."""
    square = f'<svg viewBox="0 0 10 10"><rect class="{kind}" width="10" height="10"/></svg>'
    return f'<span class="key">{square} {what}</span>'


def _unit(most: float) -> tuple[str, float]:
    """The unit for an axis of bytes, and how many bytes it is."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    power = min(len(units) - 1, max(0, floor(log10(most) / 3))) if most >= 1 else 0
    return units[power], 1000.0**power


def _flow(summary: Summary) -> str:
    if not summary.spans:
        return ""
    first, last = summary.spans[0].start, summary.spans[-1].start + summary.seconds
    steps = ceil((last - first) / summary.seconds)
    together = ceil(steps / _STEPS)
    seconds = together * summary.seconds
    sums = [Sum() for _ in range(ceil(steps / together))]
    for one in summary.spans:
        i = (one.start - first) // seconds
        sums[i] = _added((sums[i], one))
    unit, scale = _unit(max(one.source_bytes for one in sums) / seconds)
    axes = _Axes(max(one.source_bytes for one in sums) / seconds / scale, len(sums), f"{unit}/s of originals")
    short = seconds * len(sums) < 2 * 86400
    names = []
    for i, added in enumerate(sums):
        when = datetime.fromtimestamp(first + i * seconds, UTC)
        amount = f"{size(added.source_bytes)} in {size(added.stored_bytes)}"
        label = f"{when:%Y-%m-%d %H:%M}: {counted(added.files, 'file')}, {amount}"
        names.append(f"{when:%d %b %H:%M}" if short else f"{when:%Y-%m-%d}")
        if added.files:
            axes.column(i, added.source_bytes / seconds / scale, label, part=0.9, at=0.05)
    axes.names(names)
    minutes = seconds // 60
    span = f"{minutes} minutes" if minutes < 120 else f"{minutes / 60:g} hours" if minutes < 2880 else ""
    span = span or f"{minutes / 1440:.3g} days"
    return _svg(
        axes.height, "Throughput over time", axes.parts, f"Mean of {span} each, of the files that are there now."
    )
