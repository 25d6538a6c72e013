"""`python tools/invert.py ...` is `sdfgan invert ...`; see --help."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["invert", *sys.argv[1:]], as_program=True))
