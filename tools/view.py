"""`python tools/view.py ...` is `sdfgan view ...`; see --help."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["view", *sys.argv[1:]], as_program=True))
