"""The time that a file system gives to what is made in it now."""

import os
import time

import pytest

from mrcz.archive.server_clock import ServerClock


def test_it_is_the_time_of_new_files_and_leaves_nothing(tmp_path):
    clock = ServerClock(tmp_path, distrust=5)
    now = clock.now()
    (tmp_path / "new").write_bytes(b"")
    status = os.stat(tmp_path / "new")
    assert abs(status.st_mtime_ns - now) < 1e9
    assert clock.device == status.st_dev
    assert os.listdir(tmp_path) == ["new"]


class Jumping(ServerClock):
    """A server whose clock can be set: what stat says is moved by so many seconds."""

    ahead = 0.0

    def _probe(self):
        found = super()._probe()
        values = {name: getattr(found, name) for name in ("st_dev", "st_mtime_ns")}
        values["st_mtime_ns"] += int(self.ahead * 1e9)
        return type("Status", (), values)


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_a_clock_that_was_set_is_not_believed_for_a_while(tmp_path, seconds):
    monotonic = [100.0]
    clock = Jumping(tmp_path, distrust=5, monotonic=lambda: monotonic[0])
    assert clock.now() is not None
    clock.ahead = seconds
    assert clock.now() is None
    monotonic[0] += 4
    clock.ahead = seconds + 4  # time goes on
    assert clock.now() is None
    monotonic[0] += 2
    clock.ahead = seconds + 6
    assert abs(clock.now() / 1e9 - time.time() - clock.ahead) < 1


def test_a_clock_that_drifts_is_believed(tmp_path):
    clock = Jumping(tmp_path, distrust=5)
    assert clock.now()
    clock.ahead = 1.0
    assert clock.now()


def test_where_nothing_can_be_written_there_is_no_clock(tmp_path):
    assert ServerClock(tmp_path / "missing", distrust=5).now() is None
    (tmp_path / "file").write_bytes(b"")
    assert ServerClock(tmp_path / "file", distrust=5).now() is None


def test_a_folder_with_a_long_path_and_odd_name(tmp_path):
    folder = tmp_path / ("x" * 200) / os.fsdecode(b"\xff\n%")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        pytest.skip(str(error))
    assert ServerClock(folder, distrust=5).now()
