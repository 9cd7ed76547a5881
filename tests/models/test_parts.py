"""The parts of the network by the names of its layers."""

import pytest

from polynet_keras.models.parts import PARTS, check_part, part_of


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("stem_conv1", "stem"),
        ("stem_mixed2_branch1_conv1_bn", "stem"),
        ("stage_a_01_f_branch1_conv1", "stage_a"),
        ("reduction_a_branch2_conv1", "reduction_a"),
        ("stage_b_10_relu", "stage_b"),
        ("reduction_b_concat", "reduction_b"),
        ("stage_c", "stage_c"),
        ("predictions", "predictions"),
        ("avg_pool", None),
        ("stemless", None),
        ("stage_apple", None),
        ("my_stem_conv1", None),
        ("", None),
    ],
)
def test_the_part_of_a_layer(name, part):
    assert part_of(name) == part


def test_parts_are_in_the_order_of_the_network():
    assert PARTS == ("stem", "stage_a", "reduction_a", "stage_b", "reduction_b", "stage_c", "predictions")


def test_what_is_no_part_is_refused():
    for part in PARTS:
        check_part("through", part)
    for other in ("stage_d", "stem_conv1", None):
        with pytest.raises(
            ValueError,
            match=rf"^through={other!r} must be one of stem, stage_a, .*, predictions(; did you mean stage_c\?)?$",
        ):
            check_part("through", other)
