"""What happens when a command comes to import Keras or TensorFlow; most mistakes are told before it does."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from importlib.abc import MetaPathFinder

from polynet_keras.cli.backend import check_backend

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
"""TensorFlow's own: from which level it logs. 0 is all."""


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Checks Keras's backend before Keras is imported, and leaves out what TensorFlow says of itself.

    Its warnings and errors stay. With `TF_CPP_MIN_LOG_LEVEL=0` in the environment all is shown.

    Python's `FutureWarning`s, which packages give each other's developers, are left out unless the user asks for
    warnings, with `PYTHONWARNINGS` say.
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
    """Leaves out what TensorFlow says of itself, in this process and in those that it starts."""
    if os.environ.get(LOG_LEVEL) == "0":
        return contextlib.nullcontext()
    from polynet_keras.basics.stderr_filter import TENSORFLOW, held_back

    return held_back(TENSORFLOW)


class _BeforeImport(MetaPathFinder):
    """Finds nothing: it is asked first, and leaves the search to the others."""

    def __init__(self, stack: contextlib.ExitStack):
        self._stack = stack

    def find_spec(self, name, path=None, target=None) -> None:
        if name == "keras":
            check_backend()
        elif name == "tensorflow":
            self._stack.enter_context(without_greetings())
