"""The `sdfgan` command. A sub-command is a frozen dataclass, whose fields are its flags, and a function of it.

Exit status: 0; 1 for what `doctor` finds broken; 2 for errors of the user, with one line on stderr; 130 after
Ctrl-C. Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Sequence

from sdfgan.cli.commands import COMMANDS
from sdfgan.cli.streams import is_full, open_streams, say_error, silence
from sdfgan.compat.flags import translate
from sdfgan.errors import UserError
from sdfgan.training.interrupt import STATUS, Interrupts

_OF_PATHS = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EROFS)


def main(argv: Sequence[str] | None = None, as_program: bool = False) -> int:
    """Run `sdfgan` with `argv` (default: the command line's) and return its exit status.

    `as_program`: Ctrl-C may end the process at once while nothing is begun.
    """
    open_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    name, arguments = _command(arguments)
    called = f"sdfgan {name}" if name in COMMANDS else "sdfgan"
    with Interrupts(called, nothing_to_undo=as_program) as interrupts:
        try:
            status = _run(called, name, arguments, interrupts)
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            return _interrupted(called, error)
        except Exception as error:
            if interrupts.received:  # what a library made of it, or lost by it
                return _interrupted(called)
            if isinstance(error, BrokenPipeError):  # who read the output has seen enough, as `head` has
                silence(sys.stdout)
                return 128 + signal.SIGPIPE
            if not isinstance(error, OSError) or not is_full(error):
                raise
            silence(sys.stdout)
            return _error(called, f"{error.filename or 'output'} cannot be written: {error.strerror}")
        return _interrupted(called) if interrupts.received else status


def _interrupted(program: str, error: BaseException | None = None) -> int:
    advice = f"; {error}" if error is not None and str(error) else ""
    say_error(f"{program}: interrupted{advice}")
    return STATUS


def _command(arguments: list[str]) -> tuple[str, list[str]]:
    """The name of the command, which may have two words, and the other arguments."""
    name, rest = (arguments[0].replace("_", "-"), arguments[1:]) if arguments else ("--help", [])
    actions = [command.split()[1] for command in COMMANDS if command.startswith(f"{name} ")]
    for index, argument in enumerate(rest):
        if argument in actions:
            return f"{name} {argument}", rest[:index] + rest[index + 1 :]
    return name, rest


def _run(program: str, name: str, arguments: list[str], interrupts: Interrupts) -> int:
    try:
        if name == "--version":
            from sdfgan import __version__

            print(f"sdfgan {__version__}")
        elif name == "--print-completion":
            from sdfgan.cli.completion import completion

            print(completion(arguments[0] if arguments else ""))
        elif name in ("-h", "--help", "--help-all"):
            from sdfgan.cli.help import overview

            print(overview())
        elif name not in COMMANDS:
            return _no_command(name, arguments)
        elif {"-h", "--help", "--help-all"} & set(arguments):
            from sdfgan.cli.help import command_help

            print(command_help(name, "--help-all" in arguments))
        else:
            from sdfgan.cli.parse import parse

            given, notes = translate(name.split()[0], arguments)
            for note in notes:
                print(f"{program}: {note}", file=sys.stderr)
            config = parse(program, COMMANDS[name].load_config(), given)
            run = COMMANDS[name].load_function()
            interrupts.nothing_to_undo = False
            found = run(config)
            return found if isinstance(found, int) else 0
    except UserError as error:
        if interrupts.received:
            raise
        return _error(program, str(error))
    except OSError as error:  # of a path that was only looked at
        if interrupts.received or error.filename is None or error.errno not in _OF_PATHS:
            raise
        return _error(program, f"{error.filename}: {error.strerror}")
    except (MemoryError, RuntimeError) as error:
        if interrupts.received or not _is_out_of_memory(error):
            raise
        advice = "a smaller --resolution, or in training a smaller --chunk-size, --batch-size or --rays"
        first, _, _ = str(error).partition("\n")
        return _error(program, f"out of memory: try {advice}. {first}")
    return 0


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or, as torch says it, the machine has no more memory."""
    lacking = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return lacking or "can't allocate memory" in str(error)


def _no_command(name: str, arguments: list[str]) -> int:
    from sdfgan.cli.parse import closest

    actions = [command for command in COMMANDS if command.startswith(f"{name} ")]
    if actions and (not arguments or {"-h", "--help", "--help-all"} & set(arguments)):
        from sdfgan.cli.help import overview

        print(overview(f"{name} "))
        return 0
    if actions:
        first = next((one for one in arguments if not one.startswith("-")), "")
        given, known = f"{name} {first}".strip(), actions
    else:
        given, known = name, list(COMMANDS)
    return _error("sdfgan", f"no command {given!r}{closest(given, known) or ': must be one of ' + ', '.join(known)}")


def _error(program: str, message: str) -> int:
    say_error(f"{program}: error: {' '.join(message.split())}")
    return 2
