"""`python tools/render.py ...` is `sdfgan render ...`; see --help."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["render", *sys.argv[1:]], as_program=True))
