import keras
import pytest

from polynet_keras.layers.variable_names import plain_variable_names


def made():
    layer = keras.layers.Dense(2, name="head")
    layer.build((None, 3))
    return layer.weights


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's variables have names")
def test_variables_share_one_name_in_tensorflow():
    import tensorflow as tf

    with tf.name_scope("around"), plain_variable_names():
        inside = made()
    outside = made()
    assert {variable.value.name for variable in inside} == {"variable:0"}
    assert len({variable.value.name for variable in outside}) == 2


def test_keras_names_and_paths_are_as_ever():
    with plain_variable_names():
        inside = made()
    outside = made()
    assert (
        [variable.path for variable in inside]
        == [variable.path for variable in outside]
        == ["head/kernel", "head/bias"]
    )
    assert [variable.name for variable in inside] == ["kernel", "bias"]
