"""`python -m sdfgan` is the `sdfgan` command."""

import sys

from sdfgan.cli import program

if __name__ == "__main__":
    sys.exit(program())
