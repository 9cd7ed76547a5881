"""Exit codes of a process. They tell a scheduler whether to start it again."""

import errno

TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EAGAIN, errno.ENOMEM)
"""Errors of a file system or a network that may not happen again: they are not the user's mistake."""
EXIT_MISTAKE = 1
"""The user's mistake: a new start would fail in the same way."""
EXIT_SOFTWARE = 70
"""EX_SOFTWARE of sysexits.h: any other error."""
EXIT_RESTART = 75
"""EX_TEMPFAIL of sysexits.h: a new start resumes the work."""
EXIT_INTERRUPTED = 130
"""Ctrl-C, as shells report it."""
EXIT_UNREAD = 141
"""The reader of the output has closed the pipe: the code that shells report after SIGPIPE."""


class Restart(SystemExit):
    """Ends this process and asks for a new start.

    It is a `SystemExit` and not an `Exception`, as `KeyboardInterrupt` is not either. Code that retries after errors,
    such as a tuner, would otherwise catch it and continue until SIGKILL. A script that does not catch it exits without
    a traceback, with the code that asks for a new start.
    """

    def __init__(self):
        super().__init__(EXIT_RESTART)
