"""The formats for export. A new format is a file in this folder, and a name in `FORMATS`."""

from polynet_keras.basics.checks import near_name
from polynet_keras.deployment.formats.format import Format
from polynet_keras.deployment.formats.litert import LITERT
from polynet_keras.deployment.formats.onnx import ONNX
from polynet_keras.deployment.formats.openvino import OPENVINO
from polynet_keras.deployment.formats.saved_model import SAVED_MODEL
from polynet_keras.deployment.formats.torch import TORCH

FORMATS = {format.name: format for format in (SAVED_MODEL, ONNX, OPENVINO, LITERT, TORCH)}
"""The formats by name."""


def format_of(name: str) -> Format:
    """Returns the format of a name in `FORMATS`, or of an alias.

    Raises:
        ValueError: there is no such format; the message has the nearest name.
    """
    found = FORMATS.get(name) or next((one for one in FORMATS.values() if one.alias == name), None)
    if found is None:
        raise ValueError(f"format={name!r} must be one of {', '.join(FORMATS)}{near_name(name, FORMATS)}")
    return found
