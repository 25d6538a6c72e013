"""`python -m sdfgan` is the `sdfgan` command."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main())
