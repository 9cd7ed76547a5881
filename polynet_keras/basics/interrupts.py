"""Ctrl-C, where it comes while C code calls Python."""

import contextlib
from collections.abc import Iterator


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an error is an interrupt, or the `SystemError` that Python makes of one that C code did not expect."""
    while isinstance(error, SystemError):
        error = error.__cause__ or error.__context__  # Keras raises errors anew, without their cause
    return isinstance(error, KeyboardInterrupt)


@contextlib.contextmanager
def interrupts_kept() -> Iterator[None]:
    """Raises `KeyboardInterrupt` for an error inside that is from one."""
    try:
        yield
    except SystemError as error:
        if is_interrupt(error):
            raise KeyboardInterrupt from None
        raise
