"""Opens an export, for rooms below the one that knows the formats."""

from collections.abc import Callable
from typing import Any

load_export: Callable[[Any], Any] | None = None
"""From the `pretrained.model_source.ModelSource` of an export to an `evaluation.loading.TrainedModel`.

The package's own `__init__`, which stands above all rooms, puts `polynet_keras.loading.load_export` here.
"""
