"""`python tools/fit_image.py ...` is `sdfgan fit-image ...`; see --help."""

import sys

from sdfgan.__main__ import program

if __name__ == "__main__":
    sys.exit(program("fit-image"))
