"""`python tools/dataset.py ...` is `sdfgan dataset ...`; see --help."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["dataset", *sys.argv[1:]], as_program=True))
