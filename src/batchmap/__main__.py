"""python -m batchmap is the command line."""

import sys

from batchmap.cli import main

if __name__ == "__main__":
    sys.exit(main())
