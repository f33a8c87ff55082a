"""A tree that is watched by a clock of our own."""


class Clock:
    """A clock that goes when it is told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def looks(watch, clock, seconds):
    """Sources that are found in so many seconds, a look each."""
    found = []
    for _ in range(seconds):
        clock.now += 1
        found += watch.look()
    return [one.source for one in found]


def make(path, data=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
