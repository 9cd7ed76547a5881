from .artifact import ExportCard, load_exported
from .calibration import Calibration
from .exporting import export
from .fusing import fuse
from .serving.settings import ServingSettings
from .serving.start import serve

__all__ = [
    "Calibration",
    "ExportCard",
    "ServingSettings",
    "export",
    "fuse",
    "load_exported",
    "serve",
]
