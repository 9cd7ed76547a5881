"""What real folders hold is read right or refused by name."""

import numpy as np
import pytest

from polynet_keras.data.image_files import read_image
from tests.data.hostile import hostile_images


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("image", hostile_images(), ids=lambda image: image.name)
def test_hostile_image(tmp_path, image, channels):
    path = tmp_path / image.name
    path.write_bytes(image.encoded)
    if image.pixels is None:
        with pytest.raises(ValueError, match=rf"{path}: .*{image.reason}"):
            read_image(path, channels)
    else:
        np.testing.assert_array_equal(read_image(path, channels), image.pixels_of(channels))


def test_names_are_distinct():
    names = [image.name for image in hostile_images()]
    assert len(names) == len(set(names)) > 50
