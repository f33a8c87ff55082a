"""What a user writes, and when work may begin: midnight, summer time, several parts of a day."""

import calendar
import os
import pickle
import time

import pytest

from mrcz.archive.capacity import usable_cores
from mrcz.archive.limits import Hours, Limits, parse_cores, parse_hours, parse_rate, parse_size
from mrcz.archive.pace import pace_of
from mrcz.archive.task import Options


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4e9), ("4 GB", 4e9), ("4GiB", 4 << 30), ("4gi", 4 << 30), ("800M", 8e8), ("1.5k", 1500), ("512", 512)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-4G", "4X", "4G/s", "nan", "1e9", "0", "4 G B", "9" * 400, "٤G", "4G\n5"])
def test_wrong_sizes_say_what_is_right(text):
    with pytest.raises(ValueError, match="no size: write 800M, 4G or 4GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("200MB/s", 2e8),
        ("200M", 2e8),
        ("200m", 2e8),
        ("1.5 GB/s", 1.5e9),
        ("100MiB/s", 100 * 2**20),
        ("1Gbit/s", 1.25e8),
        ("80 Mbit / s", 1e7),
        ("0", 0),
        (".5GB/s", 5e8),
    ],
)
def test_rates(text, rate):
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "fast", "200Mb/s", "200MB/m", "-1", "inf", "1" * 400, "200MB/s/s"])
def test_wrong_rates_say_what_is_right(text):
    with pytest.raises(ValueError, match="no rate: write 200MB/s, or 1Gbit/s for bits"):
        parse_rate(text)


def test_cores():
    assert parse_cores("4") == 4
    assert parse_cores("100%") == usable_cores()
    assert parse_cores(" 1 %") == 1
    for text in ("0", "-1", "half", "101%", "0%", "1.5", "9" * 50):
        with pytest.raises(ValueError, match="no number of cores: write 4, or 50%"):
            parse_cores(text)


def test_hours():
    assert parse_hours("20:00-06:00") == (Hours(1200, 360),)
    assert parse_hours("12:00 - 13:30, 20:00-24:00") == (Hours(720, 810), Hours(1200, 1440))
    assert [str(part) for part in parse_hours("8:05–9:00,22:00-6:00")] == ["08:05-09:00", "22:00-06:00"]
    wrong = "no hours: write 20:00-06:00"
    for text in (
        "",
        "20-06",
        "20:00",
        "20:00-",
        "25:00-06:00",
        "20:60-06:00",
        "06:00-06:00",
        "24:00-06:00",
        "a-b",
        ",",
    ):
        with pytest.raises(ValueError, match=wrong):
            parse_hours(text)


@pytest.fixture
def zone():
    """Sets the time zone, as a machine there has it."""
    if not hasattr(time, "tzset"):
        pytest.skip("the time zone of a process cannot be set here")
    before = os.environ.get("TZ")

    def use(name):
        os.environ["TZ"] = name
        time.tzset()

    yield use
    if before is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = before
    time.tzset()


BASEL = "CET-1CEST,M3.5.0,M10.5.0/3"


def utc(*when):
    return float(calendar.timegm((*when, 0, 0, 0)[:6]))


def test_over_midnight(zone):
    zone("UTC")
    night = Limits(hours=parse_hours("20:00-06:00"))
    assert night.outside_hours(utc(2026, 11, 27, 12, 0)) == 8 * 3600
    assert night.outside_hours(utc(2026, 11, 27, 12, 0) + 0.25) == 8 * 3600 - 0.25
    for hour, minute in ((20, 0), (23, 59), (0, 0), (5, 59)):
        assert night.outside_hours(utc(2026, 11, 27, hour, minute)) == 0
    assert night.outside_hours(utc(2026, 11, 27, 6, 0)) == 14 * 3600
    assert night.outside_hours(utc(2026, 11, 27, 19, 59, 59)) == 1


def test_several_parts_of_a_day(zone):
    zone("UTC")
    limits = Limits(hours=parse_hours("12:00-13:00,20:00-24:00"))
    assert limits.outside_hours(utc(2026, 11, 27, 0, 0)) == 12 * 3600
    assert limits.outside_hours(utc(2026, 11, 27, 12, 30)) == 0
    assert limits.outside_hours(utc(2026, 11, 27, 13, 0)) == 7 * 3600
    assert limits.outside_hours(utc(2026, 11, 27, 23, 59, 59)) == 0


def test_always_without_hours():
    assert Limits().outside_hours() == 0
    assert Limits(hours=parse_hours("00:00-24:00")).outside_hours() == 0


def test_the_clock_is_that_on_the_wall(zone):
    zone("IST-5:30")
    limits = Limits(hours=parse_hours("20:00-06:00"))
    assert limits.outside_hours(utc(2026, 11, 27, 14, 29)) == 60
    assert limits.outside_hours(utc(2026, 11, 27, 14, 30)) == 0


def test_clocks_set_forward(zone):
    zone(BASEL)  # on 2026-03-29 it is 3:00 after 1:59, which is 1:00 UTC
    evening = utc(2026, 3, 28, 17, 0)  # 18:00
    assert Limits(hours=parse_hours("04:00-05:00")).outside_hours(evening) == 9 * 3600
    # From 2:30 on, which does not exist: from 3:00.
    limits = Limits(hours=parse_hours("02:30-05:00"))
    assert limits.outside_hours(evening) == 8 * 3600
    assert limits.outside_hours(utc(2026, 3, 29, 1, 0)) == 0
    # Hours that do not exist that night come with the next.
    assert Limits(hours=parse_hours("02:10-02:50")).outside_hours(evening) == utc(2026, 3, 30, 0, 10) - evening


def test_clocks_set_back(zone):
    zone(BASEL)  # on 2026-10-25 it is 2:00 after 2:59, which is 1:00 UTC
    evening = utc(2026, 10, 24, 16, 0)  # 18:00
    assert Limits(hours=parse_hours("04:00-05:00")).outside_hours(evening) == 11 * 3600
    limits = Limits(hours=parse_hours("02:00-02:30"))
    assert limits.outside_hours(utc(2026, 10, 25, 0, 15)) == 0
    assert limits.outside_hours(utc(2026, 10, 25, 0, 30)) == 1800  # the hour comes twice
    assert limits.outside_hours(utc(2026, 10, 25, 1, 15)) == 0


@pytest.mark.parametrize("name", [BASEL, "UTC", "<+0545>-5:45", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"])
def test_who_waits_as_long_as_he_is_told_comes_in_time(zone, name):
    zone(name)
    limits = Limits(hours=parse_hours("02:20-02:40,13:00-13:01"))
    for number in range(0, 400 * 24 * 2, 37):
        now = utc(2026, 1, 1, 0, 0) + number * 1800 + 11
        wait = limits.outside_hours(now)
        assert limits.outside_hours(now + wait) == 0
        assert wait == 0 or limits.outside_hours(now + wait - 1) == 1


def test_workers_by_cores_and_memory():
    limits = Limits(cores=8, memory=4_000_000_000)
    assert limits.workers(100_000_000) == 8
    assert limits.workers(1_000_000_000) == 4
    assert limits.workers(100_000_000_000) == 1
    assert Limits().workers(1) == usable_cores()


def test_the_share_of_one_worker():
    part = Limits(cores=8, memory=800, read_rate=4e8, write_rate=1e8, nice=5).share(4)
    assert part == Limits(cores=2, memory=200, read_rate=1e8, write_rate=2.5e7, nice=5)
    assert Limits(cores=1).share(4).cores == 1


def test_limits_are_a_value_that_travels():
    limits = Limits(cores=2, read_rate=1e6, hours=parse_hours("20:00-06:00"))
    assert pickle.loads(pickle.dumps(limits)) == limits
    assert hash(limits) == hash(pickle.loads(pickle.dumps(limits)))


def test_the_rates_at_work():
    limits = Limits(read_rate=1e6)
    pace = pace_of(Options(read_rate=limits.read_rate, write_rate=limits.write_rate))
    start = time.monotonic()
    pace.read(500_000)
    pace.write(1 << 40)
    assert 0.2 <= time.monotonic() - start < 1


@pytest.mark.parametrize(
    "wrong",
    [{"cores": 0}, {"memory": 0}, {"read_rate": -1}, {"write_rate": float("nan")}, {"nice": 20}, {"nice": -1}],
)
def test_wrong_limits_are_refused(wrong):
    with pytest.raises(ValueError):
        Limits(**wrong)
