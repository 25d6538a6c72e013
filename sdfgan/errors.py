"""The one exception for user errors: the command line prints it as one line and exits with status 2."""


class UserError(Exception):
    """A bad input: the message names the file or field, what was expected and what came, in one line."""
