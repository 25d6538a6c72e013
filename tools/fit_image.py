"""`python tools/fit_image.py ...` is `sdfgan fit-image ...`; see --help."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["fit-image", *sys.argv[1:]], as_program=True))
