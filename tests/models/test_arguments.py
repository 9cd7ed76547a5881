"""What the builders refuse, and what they take."""

import numpy as np
import pytest

from polynet_keras.models.arguments import MIN_SIZE, check_image_shape


@pytest.mark.parametrize(
    "shape", [(75, 75, 3), (76, 1000, 1), (None, 75, 4), (None, None, 3), (np.int64(80), 75, np.int64(3))]
)
def test_image_shapes(shape):
    assert MIN_SIZE == 75  # below it nothing is left after the second reduction
    check_image_shape("input_shape", shape)
    height, width, channels = shape
    check_image_shape("input_shape", (channels, height, width), ("channels", "height", "width"))


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((75, 75), r"got 75 x 75$"),
        ((75, 75, 3, 1), r"got 75 x 75 x 3 x 1$"),
        ((74, 75, 3), r"got 74 x 75 x 3$"),
        ((75, 74, 3), r"got 75 x 74 x 3$"),
        ((75.0, 75, 3), r"got 75.0 x 75 x 3$"),
        ((75, True, 3), r"got 75 x True x 3$"),
        (("75", 75, 3), r"got '75' x 75 x 3$"),
        ((75, 75, 0), "that is 0 channels"),
        ((75, 75, 2), "that is 2 channels"),
        ((75, 75, 5), "that is 5 channels"),
        ((75, 75, None), "that is None channels"),
        ((75, 75, 3.0), "that is 3.0 channels"),
        ((75, 75, True), "that is True channels"),
    ],
)
def test_impossible_image_shapes(shape, why):
    with pytest.raises(
        ValueError, match=rf"^this must be \(height, width, channels\) with 1, 3 or 4 .* 75 px; .*{why}"
    ):
        check_image_shape("this", shape)


def test_which_axis_is_which():
    order = ("channels", "height", "width")
    with pytest.raises(ValueError, match=r"^it must be \(channels, height, width\) .* that is 75 channels$"):
        check_image_shape("it", (75, 75, 3), order)
    with pytest.raises(ValueError, match=r"got 3 x 75 x 3$"):
        check_image_shape("it", (3, 75, 3), order)
