"""The one exception for user errors: the command line prints it as one line and exits with status 2."""

import importlib.util


class UserError(Exception):
    """A bad input: the message names the file or field, what was expected and what came, in one line."""


def one_line(error: Exception) -> str:
    """What an error says, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def require_module(name: str, what: str, extra: str) -> None:
    """Raises UserError, with what to install, where a module is missing that `what` needs."""
    if importlib.util.find_spec(name) is None:
        raise UserError(f'{what} needs {name}: pip install "sdfgan[{extra}]"')
