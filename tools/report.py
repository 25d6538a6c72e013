"""`python tools/report.py ...` is `sdfgan report ...`; see --help."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]], as_program=True))
