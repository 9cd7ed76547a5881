"""Keras knows every class of ours that a saved model may name, once this package and Keras have been imported.

Importing Keras takes seconds, and `polynet --help` does without. So the classes are imported when Keras is: at once if
Keras is already imported, else after the program's own `import keras`.
"""

import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MODULES = (
    "polynet_keras.engine.distributed_model",
    "polynet_keras.engine.network",
    "polynet_keras.layers.batch_normalization",
    "polynet_keras.layers.channel_split",
    "polynet_keras.layers.stochastic_residual_scaling",
    "polynet_keras.training.lamb",
    "polynet_keras.training.learning_rate_factors",
    "polynet_keras.training.losses",
    "polynet_keras.training.making",
    "polynet_keras.training.optimizers",
)
"""That register a class with Keras when they are imported."""


def register_with_keras() -> None:
    """Registers the classes of `MODULES`: now, or right after the import of Keras."""
    if sys.modules.get("keras") is not None:
        _import_modules()
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras())


class _AfterKeras(MetaPathFinder):
    """Leaves the search for Keras to the other finders, and has the modules imported when Keras is.

    It stays until then: Keras may be looked for and not imported, or fail and be tried again.
    """

    _asks_the_others = False

    def find_spec(self, name, path=None, target=None) -> ModuleSpec | None:
        if name != "keras" or self._asks_the_others:
            return None
        self._asks_the_others = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._asks_the_others = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                _import_modules()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _import_modules() -> None:
    for module in MODULES:
        importlib.import_module(module)
