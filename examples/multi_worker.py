"""A small PolyNet on handwritten digits, trained by several workers together with `model.fit`.

    polynet launch --workers 2 -- python examples/multi_worker.py      # two on this machine
    TF_CONFIG='{"cluster": ..., "task": ...}' python examples/multi_worker.py   # one on each of many machines
    python examples/multi_worker.py                                    # alone

The first worker shows Keras's progress and, at the end, the sum of the weights' magnitudes and the held-out accuracy:
20557 and 0.89 alone, 20552 and 0.81 with two workers were seen. In float64 three steps give both the same 12 digits; in
float32 the first step's losses part in the fifth one, as they do alone with another number of threads.
"""

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from polynet_keras import PolyNet
from polynet_keras.cluster import Cluster, open_strategy, peer_failures
from polynet_keras.layers import synchronize_batch_normalization
from polynet_keras.training import RMSprop

NET = {"structure": "1 x [2-way] | 1 x [poly-3] | 1 x [2-way]", "width": 0.125, "residual_scale": 0.3}
GLOBAL_BATCH_SIZE = 32
EPOCHS = 3


def batches(images: np.ndarray, labels: np.ndarray, shuffle: bool) -> tf.data.Dataset:
    """Global batches: the strategy gives each worker its part."""
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    if shuffle:
        dataset = dataset.shuffle(len(images), seed=0)  # the same order on every worker
    resized = dataset.batch(GLOBAL_BATCH_SIZE).map(lambda x, y: (tf.image.resize(x, (75, 75)), y), tf.data.AUTOTUNE)
    return resized.prefetch(2)  # without tf.data's tuning, as here, AUTOTUNE would buffer without bound


def train(cluster: Cluster) -> None:
    strategy = open_strategy(cluster=cluster) or tf.distribute.get_strategy()
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images, labels = digits.images[..., np.newaxis].astype("float32") / 8 - 1, digits.target
    with strategy.scope():
        model = PolyNet(weights=None, input_shape=(75, 75, 1), classes=10, **NET)
        synchronize_batch_normalization(model)
        model.compile(RMSprop(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(batches(images[:1440], labels[:1440], shuffle=True), epochs=EPOCHS)
    _, accuracy = model.evaluate(batches(images[1440:], labels[1440:], shuffle=False))
    if cluster.is_chief:
        weights = sum(np.abs(weight).sum() for weight in model.get_weights())
        print(f"{cluster.count} workers, weights {weights:.2f}, held-out accuracy {accuracy:.4f}")


if __name__ == "__main__":
    cluster = Cluster.from_environment()  # what TF_CONFIG or Slurm say, or this process alone
    with peer_failures(cluster):  # when a worker fails, the others end and say which
        train(cluster)
