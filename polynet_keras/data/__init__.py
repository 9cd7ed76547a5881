"""Data from images to batches: sources, the preprocessing protocol, augmentation, the tf.data pipeline."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
