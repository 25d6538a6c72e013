"""`python tools/report.py ...` is `sdfgan report ...`; see --help."""

import sys

from sdfgan.__main__ import program

if __name__ == "__main__":
    sys.exit(program("report"))
