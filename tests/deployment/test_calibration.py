import numpy as np
import pytest
from PIL import Image

from polynet_keras.data.protocol import Preprocessing
from polynet_keras.data.sources import open_source
from polynet_keras.deployment.calibration import Calibration


def test_an_image_of_the_calibration_that_cannot_be_read_is_named(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(8):
            Image.new("RGB", (12, 12), (0, 90, 10 * number)).save(tmp_path / label / f"{number}.png")
    preprocessing = Preprocessing(8, 8)

    def images():
        calibration = Calibration(open_source(str(tmp_path), 0).training, images=8)
        return np.concatenate([*calibration.batches(preprocessing), calibration.others(preprocessing)])

    assert images().shape[1:] == (8, 8, 3)
    for path in tmp_path.glob("b/*"):
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"b/\d.png: cannot be read as an image"):
        images()
