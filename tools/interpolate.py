"""`python tools/interpolate.py ...` is `sdfgan interpolate ...`; see --help."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["interpolate", *sys.argv[1:]], as_program=True))
