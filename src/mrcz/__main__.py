"""``python -m mrcz`` is the ``mrcz`` command, and this is where that begins."""

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line; Ctrl-C while it is still being loaded ends it as quietly as later."""
    try:
        from mrcz.cli import main as run

        return run()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
