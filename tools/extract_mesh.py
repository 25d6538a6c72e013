"""`python tools/extract_mesh.py ...` is `sdfgan extract-mesh ...`; see --help."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["extract-mesh", *sys.argv[1:]], as_program=True))
