"""The `sdfgan` command as a program of its own, which Ctrl-C ends with one line from its first moment."""

import sys


def program(*command: str) -> int:
    """`sdfgan.cli.main` with the words of a command before the command line's arguments; its exit status."""
    try:
        from sdfgan.cli import main

        return main([*command, *sys.argv[1:]], as_program=True)
    except KeyboardInterrupt:  # while the line above is carried out
        print("sdfgan: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(program())
