from .augmentation import Augmentation
from .crops import crop_plan
from .examples import Examples
from .image_files import read_image
from .pipeline import evaluation_batches, training_batches, validation_data
from .protocol import Preprocessing
from .records.describe import describe_records
from .records.manifest import verify_records
from .records.write import write_records
from .sources import open_source, open_split
from .unreadable import Unreadable

__all__ = [
    "Augmentation",
    "Examples",
    "Preprocessing",
    "Unreadable",
    "crop_plan",
    "describe_records",
    "evaluation_batches",
    "open_source",
    "open_split",
    "read_image",
    "training_batches",
    "validation_data",
    "verify_records",
    "write_records",
]
