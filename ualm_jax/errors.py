"""The one exception meant for people."""


class UserError(Exception):
    """Something the user can mend.

    The message is one sentence: which file, record or config field, what was expected,
    what was found and what to do. The command line prints it without a traceback.
    """
