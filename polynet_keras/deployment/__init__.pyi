from .artifact import ExportCard, load_exported
from .calibration import Calibration
from .exporting import export
from .fusing import fuse

__all__ = [
    "Calibration",
    "ExportCard",
    "export",
    "fuse",
    "load_exported",
]
