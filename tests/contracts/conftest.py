import pytest
import tensorflow as tf


@pytest.fixture(scope="session")
def strategy():
    """A real strategy, of one replica."""
    return tf.distribute.MirroredStrategy(["CPU:0"])
