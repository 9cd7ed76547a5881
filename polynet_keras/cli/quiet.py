"""Hooks into a command's import of Keras or TensorFlow; most mistakes are reported before this import."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from importlib.abc import MetaPathFinder

from polynet_keras.cli.backend import check_backend

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
"""TensorFlow's variable for its lowest log level; 0 logs everything."""


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Checks Keras's backend before Keras is imported, and hides TensorFlow's start-up messages.

    TensorFlow's warnings and errors stay. With `TF_CPP_MIN_LOG_LEVEL=0` in the environment all messages are shown.

    Python's `FutureWarning`s, which are for developers, are hidden unless the user asks for warnings, for example with
    `PYTHONWARNINGS`.
    """
    os.environ.setdefault(LOG_LEVEL, "1")
    with contextlib.ExitStack() as stack:
        if not sys.warnoptions:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", FutureWarning)
        finder = _BeforeImport(stack)
        sys.meta_path.insert(0, finder)
        try:
            yield
        finally:
            sys.meta_path.remove(finder)


def without_greetings() -> contextlib.AbstractContextManager:
    """Hides TensorFlow's start-up messages, in this process and in those that it starts."""
    if os.environ.get(LOG_LEVEL) == "0":
        return contextlib.nullcontext()
    from polynet_keras.basics.stderr_filter import TENSORFLOW, held_back

    return held_back(TENSORFLOW)


class _BeforeImport(MetaPathFinder):
    """A finder that comes first, finds nothing, and leaves the search to the others."""

    def __init__(self, stack: contextlib.ExitStack):
        self._stack = stack

    def find_spec(self, name, path=None, target=None) -> None:
        if name == "keras":
            check_backend()
        elif name == "tensorflow":
            self._stack.enter_context(without_greetings())
