"""The lines of docs/export.md that prepare an image without this package do it as the package does."""

import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from polynet_keras.deployment.runtimes import load_exported
from tests.deployment.exported import exported, protocol, save_card

GUIDE = Path(__file__).parents[2] / "docs" / "export.md"

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="OpenVINO models are written there")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "options"),
    [(3, {}), (1, {}), (3, {"resize": "shorter_side", "interpolation": "bicubic", "channel_order": "BGR"})],
)
def test_an_image_prepared_without_the_package(tmp_path, monkeypatch, channels, options):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (lines,) = (block for block in blocks if "import openvino" in block)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exported(channels)[0], "clothes")
    save_card(Path("clothes"), protocol(channels, **options))
    photograph = load_sample_image("china.jpg")
    Image.fromarray(photograph).save("photograph.jpg")
    found: dict = {}
    exec(lines, found)
    model = load_exported("clothes")
    mode = {1: "L", 3: "RGB"}[channels]
    pixels = np.asarray(Image.open("photograph.jpg").convert(mode)).reshape(*photograph.shape[:2], channels)
    prepared = model.card.preprocessing(pixels)
    np.testing.assert_allclose(found["x"], prepared, atol=1e-3)
    np.testing.assert_allclose(found["probabilities"], model.run(prepared[np.newaxis]), atol=1e-3)
