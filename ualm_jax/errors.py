"""The one exception meant for people, what it says of others, and the status of a run that is to go on."""

STOPPED = 75
"""Of a run that was told to stop and has saved: a scheduler is to start it again (EX_TEMPFAIL of sysexits.h)."""


class UserError(Exception):
    """Something the user can mend.

    The message is one sentence: which file, record or config field, what was expected,
    what was found and what to do. The command line prints it without a traceback.
    """


def first_line(error: Exception) -> str:
    """What an error of another library says, short enough for a sentence."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.partition(" [source locations")[0].rstrip(".")[:200]
