"""Never run on a TPU, since none was available: TensorFlow's strategy for one, opened as its guide does."""

import tensorflow as tf

from polynet_keras.basics.tensorflow_errors import plain_message


def tpu_strategy(tpu: str | None) -> tf.distribute.Strategy:
    """Returns the strategy of a TPU.

    Args:
        tpu: the TPU's name or address; by default the one of the environment.

    Raises:
        ValueError: the TPU is missing, or cannot be initialized.
    """
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu or "")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        which = tpu or "of this environment"
        raise ValueError(f"strategy='tpu': the TPU {which} could not be initialized: {plain_message(error)}") from None
    return tf.distribute.TPUStrategy(resolver)
