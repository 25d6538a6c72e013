"""`python tools/doctor.py ...` is `sdfgan doctor ...`; see --help."""

import sys

from sdfgan.__main__ import program

if __name__ == "__main__":
    sys.exit(program("doctor"))
