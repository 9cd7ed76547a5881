"""The codes that a process ends with, and what they ask of whoever started it."""

import errno

TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EAGAIN, errno.ENOMEM)
"""Errors of a file system or a network that may be gone the next time: they are not the user's mistake."""
EXIT_MISTAKE = 1
"""The user's mistake: another start would end the same way."""
EXIT_SOFTWARE = 70
"""EX_SOFTWARE of sysexits.h: any other error."""
EXIT_RESTART = 75
"""EX_TEMPFAIL of sysexits.h: start me again, I go on."""
EXIT_INTERRUPTED = 130
"""Ctrl-C, as shells say it."""
EXIT_UNREAD = 141
"""Nobody reads what is written, as shells say of a program that SIGPIPE ends."""


class Restart(SystemExit):
    """Ends this process and asks to be started again.

    It is a `SystemExit`, as an interrupt is no `Exception` either: what retries on errors, such as a tuner, does not
    take it for one and go on until SIGKILL comes, and a script that does not catch it ends without a traceback and with
    the code that asks for a new start.
    """

    def __init__(self):
        super().__init__(EXIT_RESTART)
