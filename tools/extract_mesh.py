"""`python tools/extract_mesh.py ...` is `sdfgan extract-mesh ...`; see --help."""

import sys

from sdfgan.__main__ import program

if __name__ == "__main__":
    sys.exit(program("extract-mesh"))
