"""Turns: one thread at a time, in the order of the calls; and a Writer that many threads call."""

import threading
import time

import numpy as np
import pytest

import mrcz
from mrcz.file.turns import Turns


def wait_until(condition, what):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.001)


def test_first_come_first_served():
    turns, order = Turns("a"), []

    def work(k):
        with turns:
            order.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(20)]
    with turns:
        for k, thread in enumerate(threads):
            thread.start()
            wait_until(lambda k=k: turns.waiting() == k + 1, "it does not wait")
        assert not order
    for thread in threads:
        thread.join(20)
    assert order == list(range(20))


def test_its_own_turn_is_not_waited_for():
    turns = Turns("a.mrcz")
    with turns, pytest.raises(RuntimeError, match=r"a\.mrcz: called from within"), turns:
        pass
    with turns:  # and is over after the error
        assert turns.is_mine()
    assert not turns.is_mine()


def test_who_gives_up_waiting_gives_its_place_up(monkeypatch):
    """Ctrl-C while a thread waits, just before its turn comes and just after it was given one."""
    turns, seen = Turns("a"), []

    class Interrupted:
        """A gate whose second acquire, the wait, is interrupted; `meanwhile` happens just before."""

        def __init__(self, meanwhile):
            self.meanwhile, self.count = meanwhile, 0

        def acquire(self):
            self.count += 1
            if self.count == 2:
                self.meanwhile()
                raise KeyboardInterrupt

        def release(self):
            pass

    for given in (False, True):
        taken, done = threading.Event(), threading.Event()

        def hold(taken=taken, done=done):
            with turns:
                taken.set()
                assert done.wait(20)

        holder = threading.Thread(target=hold)
        holder.start()
        assert taken.wait(20)

        def meanwhile(given=given, done=done, holder=holder):
            if given:
                done.set()
                holder.join(20)

        with monkeypatch.context() as patch:
            patch.setattr("mrcz.file.turns.threading.Lock", lambda: Interrupted(meanwhile))
            with pytest.raises(KeyboardInterrupt), turns:
                seen.append("entered")
        done.set()
        holder.join(20)
        with turns:
            assert turns.waiting() == 0
    assert not seen


@pytest.mark.parametrize("suffix", [".mrcz", ".mrc"])
def test_frames_of_many_threads_are_whole_and_in_order(tmp_path, suffix):
    """8 threads; a frame says whose it is and which: every one is there once, those of a thread in its order, those of
    one call side by side."""
    path = tmp_path / f"a{suffix}"
    threads, each = 8, 60
    errors = []

    def frame(thread, number):
        out = np.random.default_rng(thread * 1000 + number).poisson(3, (32, 40)).astype("u2")
        out[0, :2] = thread, number
        return out

    def work(thread):
        try:
            number = 0
            while number < each:
                if thread % 2:
                    writer.append(frame(thread, number))
                    number += 1
                else:
                    block = [frame(thread, number + k) for k in range(5)]
                    writer.extend(iter(block) if number % 2 else np.stack(block))
                    number += 5
                if number % 20 == 0:
                    writer.flush()
        except BaseException as error:
            errors.append(error)

    with mrcz.open(path, "w", n_threads=2, sync=False) as writer:
        workers = [threading.Thread(target=work, args=(k,)) for k in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        assert not errors, errors
        assert len(writer) == threads * each
    stack = mrcz.read(path)
    assert mrcz.verify(path).ok and len(stack) == threads * each
    found = [(int(f[0, 0]), int(f[0, 1])) for f in stack]
    for k, (thread, number) in enumerate(found):
        assert np.array_equal(stack[k], frame(thread, number)), (k, thread, number)
    for thread in range(threads):
        places = [k for k, (t, _) in enumerate(found) if t == thread]
        assert [found[k][1] for k in places] == list(range(each))
        if thread % 2 == 0:  # blocks of five
            assert all(places[k + 4] - places[k] == 4 for k in range(0, each, 5))


def test_the_order_is_that_of_the_calls(tmp_path, rng):
    """While one call is under way others come, one after the other: they are written in that order, close last."""
    path = tmp_path / "a.mrcz"
    frames = rng.poisson(2, (12, 8, 8)).astype("u2")
    go = threading.Event()

    def slow():
        yield frames[0]
        assert go.wait(20)
        yield frames[1]

    writer = mrcz.open(path, "w", sync=False)
    calls = [threading.Thread(target=writer.extend, args=(slow(),))]
    calls += [threading.Thread(target=writer.append, args=(frames[k],)) for k in range(2, 11)]
    calls += [threading.Thread(target=writer.close)]
    calls[0].start()
    wait_until(lambda: writer._turns._owner is not None, "the first call has no turn")
    for k, call in enumerate(calls[1:]):
        call.start()
        wait_until(lambda k=k: writer._turns.waiting() == k + 1, "it does not wait")
    late = []

    def too_late():
        try:
            writer.append(frames[11])
        except ValueError as error:
            late.append(str(error))

    calls.append(threading.Thread(target=too_late))
    calls[-1].start()
    wait_until(lambda: writer._turns.waiting() == len(calls) - 1, "it does not wait")
    go.set()
    for call in calls:
        call.join(20)
    assert np.array_equal(mrcz.read(path), frames[:11])
    assert len(late) == 1 and "is closed" in late[0]


@pytest.mark.parametrize("call", ["append", "extend", "flush", "close"])
def test_frames_that_call_their_writer_are_an_error(tmp_path, rng, call):
    path = tmp_path / "a.mrcz"
    frames = rng.poisson(2, (4, 8, 8)).astype("u2")
    with mrcz.open(path, "w") as writer:
        writer.append(frames[0])

        def cyclic():
            yield frames[1]
            arguments = {"append": (frames[2],), "extend": (frames[2:3],)}.get(call, ())
            getattr(writer, call)(*arguments)

        with pytest.raises(RuntimeError, match="called from within"):
            writer.extend(cyclic())
        assert len(writer.index) == len(writer) == 1
        writer.append(frames[3])
    assert np.array_equal(mrcz.read(path), frames[[0, 3]])


def test_frames_may_end_their_writer_and_look_at_it(tmp_path, rng):
    frames = rng.poisson(2, (3, 8, 8)).astype("u2")
    writer = mrcz.open(tmp_path / "a.mrcz", "w")
    writer.append(frames[0])
    seen = []

    def ending():
        seen.append((len(writer), len(writer.index), writer.shape))
        yield frames[1]
        writer.abort()
        yield frames[2]

    with pytest.raises(ValueError, match="closed"):
        writer.extend(ending())
    assert seen == [(1, 1, (1, 8, 8))] and list(tmp_path.iterdir()) == []
