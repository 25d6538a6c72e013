"""The one exception for user errors: the command line prints it as one line and exits with status 2."""


class UserError(Exception):
    """A bad input: the message names the file or field, what was expected and what came, in one line."""


def one_line(error: Exception) -> str:
    """What an error says, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
