"""PolyNet for Keras 3.

Importing it imports neither Keras nor TensorFlow: what you name is imported then. `keras.saving.load_model` knows every
class of ours that a file may name as soon as this package and Keras have been imported, in any order.
"""

import lazy_loader

from polynet_keras.registration import register_with_keras

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

register_with_keras()
