"""``python -m mrcz`` is the ``mrcz`` command."""

import sys

from mrcz.cli import main

if __name__ == "__main__":
    sys.exit(main())
