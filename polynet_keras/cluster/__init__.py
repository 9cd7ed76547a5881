"""The processes that train together: how they are found, meet, wait for each other, and learn of a failed one."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
