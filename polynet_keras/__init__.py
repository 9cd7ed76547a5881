"""PolyNet for Keras 3.

Importing it imports neither Keras nor TensorFlow: what you name is imported then. `keras.saving.load_model` knows every
class of ours that a file may name as soon as this package and Keras have been imported, in any order.
"""

import lazy_loader

from polynet_keras.basics import exports
from polynet_keras.registration import register_with_keras

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def _load_export(source):
    from polynet_keras.loading import load_export

    return load_export(source)


register_with_keras()
exports.load_export = _load_export
