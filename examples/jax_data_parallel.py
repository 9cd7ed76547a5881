"""Trains on several devices with the JAX backend, where Keras's own `DataParallel` does all of it.

    python examples/jax_data_parallel.py

makes two devices of the processor (with accelerators, leave the flag out), and a small PolyNet takes a step on
scikit-learn's digits from the same weights on one device and on two. It goes on for three epochs on both devices, and
prints, after a minute or two on two cores,

    devices 1, 2: first losses 4.45765, 4.45766; weights moved by up to 0.4 and differ by 0.000010
    losses of the epochs on both: 3.08, 1.20, 0.28

(numbers vary between machines; later steps on one device and on two part, for a young network amplifies rounding).
JAX computes as if one device had the whole batch: batch normalization needs no `synchronized`. The batch size has to
be a multiple of the number of devices. TensorFlow need not be installed.
"""

import os

os.environ["KERAS_BACKEND"] = "jax"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"

import keras
import numpy as np
from sklearn.datasets import load_digits

from polynet_keras import PolyNet


def compiled_model(devices: int) -> keras.Model:
    """A model whose batches and steps these devices share, from the same weights however many there are."""
    available = keras.distribution.list_devices()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=available[:devices]))
    keras.utils.set_random_seed(0)
    net = {"structure": "1 x [ir] | 1 x [ir] | 1 x [ir]", "width": 0.1, "residual_scale": 0.3}
    model = PolyNet(weights=None, input_shape=(75, 75, 1), classes=10, **net)
    model.compile(keras.optimizers.SGD(0.02, momentum=0.9), "sparse_categorical_crossentropy")
    return model


def main():
    images, labels = load_digits(return_X_y=True)
    images = images[:320].reshape(-1, 8, 8, 1).astype("float32") / 8 - 1
    images, labels = np.asarray(keras.ops.image.resize(images, (75, 75))), labels[:320]
    used, losses, weights = [], [], []
    for devices in (1, 2):
        model = compiled_model(devices)
        before = [weight.astype("float32") for weight in model.get_weights()]
        losses += model.fit(images[:32], labels[:32], shuffle=False, verbose=0).history["loss"]
        weights.append([weight.astype("float32") for weight in model.get_weights()])
        used.append(len(model.trainable_variables[0].value.devices()))
    moved, apart = (max(map(lambda x, y: np.abs(x - y).max(), weights[1], other)) for other in (before, weights[0]))
    first = f"devices {used[0]}, {used[1]}: first losses {losses[0]:.5f}, {losses[1]:.5f}"
    print(f"{first}; weights moved by up to {moved:.1f} and differ by {apart:.6f}")
    history = model.fit(images, labels, batch_size=32, epochs=3, verbose=0).history
    print(f"losses of the epochs on both: {', '.join(f'{loss:.2f}' for loss in history['loss'])}")


if __name__ == "__main__":
    main()
