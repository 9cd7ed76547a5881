from .artifact import ExportCard
from .exporting import export
from .fusing import fuse
from .quantization import Calibration
from .runtimes import load_exported

__all__ = [
    "Calibration",
    "ExportCard",
    "export",
    "fuse",
    "load_exported",
]
