"""`python tools/evaluate.py ...` is `sdfgan evaluate ...`; see --help."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]], as_program=True))
