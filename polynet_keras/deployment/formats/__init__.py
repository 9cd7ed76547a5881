"""The formats that a trained model is exported to. A new one is a file here, and its name in `FORMATS`."""

from polynet_keras.deployment.formats.litert import LITERT
from polynet_keras.deployment.formats.onnx import ONNX
from polynet_keras.deployment.formats.openvino import OPENVINO
from polynet_keras.deployment.formats.saved_model import SAVED_MODEL
from polynet_keras.deployment.formats.torch import TORCH

FORMATS = {format.name: format for format in (SAVED_MODEL, ONNX, OPENVINO, LITERT, TORCH)}
"""By name."""
