"""The page: well-formed, self-contained, and nothing in a journal becomes markup."""

import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from mrcz.archive.journal import FOLDER, Journal
from mrcz.archive.page import _ticks, page, write_report
from mrcz.archive.place import Folder
from mrcz.archive.record import Record
from mrcz.archive.report import Session, Span, Summary
from mrcz.archive.status import Status, Sum, Trouble

VOID = {"meta", "br", "link", "img"}


class Parsed(HTMLParser):
    """Every tag with its attributes, and the text; tags have to be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def summary(*, formats=None, days=None, cameras=None, troubles=(), **more):
    groups = {
        "format": {"mrc": Sum(2, 2000, 500), "": Sum(1, 1000, 500)} if formats is None else formats,
        "form": {"mrcz": Sum(3, 3000, 1000)},
        "camera": {"": Sum(3, 3000, 1000)} if cameras is None else cameras,
        "session": {"s": Sum(3, 3000, 1000)},
        "day": {"2026-11-26": Sum(1, 1000, 500), "2026-11-27": Sum(2, 2000, 500)} if days is None else days,
    }
    status = {"total": Sum(3, 3000, 1000), "shared_bytes": 0, "links": 0, "folders": 0, "pixels_only": 0}
    status |= {name: more.pop(name) for name in ("total", "links", "pixels_only", "damaged_lines") if name in more}
    values = {
        "archive": "/archive",
        "holds": Status(groups=groups, troubles=troubles, **status),
        "sessions": {"s": Session(3, 3000, 1000, "2026-11-26", "2026-11-27", "2026-11-27 10:00:00", 0)},
        "seconds": 600,
        "spans": (Span(1, 1000, 500, 1_795_737_600), Span(2, 2000, 500, 1_795_741_200)),
        "first": "2026-11-27 10:00:00",
        "last": "2026-11-27 11:00:00",
        "made": "2026-11-27 12:00:00",
        "made_by": "mrcz 1",
    }
    return Summary(**{**values, **more})


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></svg><script>x</script>",
    "&lt;script&gt;",
    "\x1b[2J\n\r\u202e\u2028\ufeff\x00",
    os.fsdecode(b"\xff\xfe"),
    "javascript:alert(1)",
    "]]><!--",
]


def test_it_says_what_there_is():
    words = " ".join(Parsed(page(summary())).words)
    for part in (
        "/archive",
        "3.00 kB",
        "1.00 kB",
        "3.00",
        "mrc",
        "4.00, 2 files",
        "2026-11-27",
        "All times and days are UTC",
    ):
        assert part in words


def test_one_is_one():
    assert "<p>1 link and 0 empty folders are written down" in page(summary(links=1))


def test_nothing_in_a_journal_becomes_markup():
    plain_tags = [tag for tag, _ in Parsed(page(summary())).tags]
    for text in HOSTILE:
        made = page(
            summary(
                archive=text,
                formats={text: Sum(2, 2000, 500), "b": Sum(1, 1000, 500)},
                cameras={text: Sum(1, 2, 1)},
                days={text: Sum(1, 1000, 500), "x" + text: Sum(2, 2000, 500)},
                sessions={text: Session(3, 3000, 1000, text, text, text)},
                troubles=(Trouble(text, text, 1, [(text, text)]),),
                first=text,
                made_by=text,
            )
        )
        made.encode("utf-8")
        parsed = Parsed(made)
        assert [tag for tag, _ in parsed.tags if tag in ("script", "img", "a", "iframe")] == []
        attributes = {name for _, attrs in parsed.tags for name in attrs}
        assert not {name for name in attrs_of_events(attributes)}
        assert set(tag for tag, _ in parsed.tags) - set(plain_tags) <= {"br"}
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e\u2028\ufeff]", made)


def attrs_of_events(attributes):
    return [name for name in attributes if name.startswith("on") or name in ("href", "src")]


def test_it_needs_nothing_else_and_runs_nothing():
    made = page(summary())
    parsed = Parsed(made)
    assert not attrs_of_events({name for _, attrs in parsed.tags for name in attrs})
    assert "http:" not in made and "https:" not in made and "url(" not in made and "@import" not in made
    (policy,) = [attrs["content"] for tag, attrs in parsed.tags if "http-equiv" in attrs]
    assert policy.startswith("default-src 'none'")


def test_light_and_dark_have_the_same_colours_named():
    style = re.search("<style>(.*?)</style>", page(summary()), re.DOTALL)[1]
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert set(re.findall("--([a-z]+):", dark)) == set(re.findall("--([a-z]+):", light))
    for theme in (light, dark):
        colours = dict(re.findall("--([a-z]+): (#[0-9a-f]+)", theme))
        for name in ("fore", "soft", "bad", "one", "two"):
            assert contrast(colours[name], colours["back"]) >= (3 if name in ("one", "two") else 4.5), name


def contrast(one, other):
    """Of two colours, as the WCAG defines it."""

    def light(colour):
        digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_much_is_put_together():
    many = summary(
        formats={f"f{number}": Sum(1, 1000 + number, 500) for number in range(3000)},
        days={f"20{year:02d}-{month:02d}-11": Sum(1, 1000, 500) for year in range(90) for month in range(1, 13)},
        sessions={f"s{number}": Session(1, 10, 5, archived=f"2026-01-01 {number:08d}") for number in range(8000)},
        spans=tuple(Span(1, 1000, 500, 1_700_000_000 + 600 * number * number) for number in range(4000)),
        troubles=tuple(Trouble("failed", f"r{number}", 1, [("a" * 1000, "b" * 1000)] * 5) for number in range(3000)),
    )
    made = page(many)
    assert len(made) < 1_500_000
    assert "And 7,500 earlier sessions: 7,500 files" in made and "s7999" in made and "s7499<" not in made
    assert "And 2,900 more reasons." in made
    Parsed(made)


@pytest.mark.parametrize(
    "more",
    [
        {"formats": {}, "days": {}, "sessions": {}, "spans": (), "total": Sum(), "first": "", "last": ""},
        {"days": {"": Sum(3, 3000, 1000)}},
        {"formats": {"mrc": Sum(1, -(1 << 62), -1)}, "days": {"2026-11-27": Sum(1, -5, -1)}},
        {"formats": {"mrc": Sum(1, (1 << 63) - 1, 1)}, "spans": (Span(1, (1 << 63) - 1, 1, 1_795_737_600),)},
        {"formats": {"mrc": Sum(0, 0, 0)}, "spans": (Span(0, 0, 0, 1_795_737_600),)},
        {"links": 3, "pixels_only": 2, "damaged_lines": ("line 3: no",)},
    ],
)
def test_odd_numbers_make_a_page(more):
    made = page(summary(**more))
    Parsed(made)
    assert "nan" not in made and 'width="-' not in made


def test_ticks_are_round_and_hold_everything():
    for top in (0.003, 0.9, 1, 1.01, 3, 7.7, 10, 99, 12345, 1e18):
        ticks = _ticks(top)
        assert ticks[0] == 0 and ticks[-1] >= top * (1 - 1e-9) and 2 <= len(ticks) <= 6
        assert ticks[-1] <= top * 2.6
    assert _ticks(0) == _ticks(-1) == [0.0, 1.0]


def test_each_plot_is_xml():
    plots = re.findall("<svg.*?</svg>", page(summary(formats={HOSTILE[0]: Sum(1, 2, 1)})), re.DOTALL)
    assert len(plots) == 6
    for plot in plots:
        ElementTree.fromstring(plot)


def test_a_report_is_written_and_written_anew(tmp_path):
    (tmp_path / FOLDER).mkdir()
    record = Record("stored", "s/a", "s", path="s/data/a", format="mrc", source_bytes=400, stored_bytes=100)
    with Journal(tmp_path, write=True) as journal:
        for size in (400, 800):
            journal.append(replace(record, source_bytes=size))
            found = write_report(Folder(tmp_path), journal)
    assert sorted(os.listdir(tmp_path / FOLDER)) == ["journal.jsonl", "report.html", "summary.json"]
    made = json.loads((tmp_path / FOLDER / "summary.json").read_text())
    assert made["holds"]["total"] == {"files": 1, "source_bytes": 800, "stored_bytes": 100}
    assert made["archive"] == str(tmp_path) == found.archive
    assert "8.00" in " ".join(Parsed((tmp_path / FOLDER / "report.html").read_text("utf-8")).words)
