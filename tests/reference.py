"""What tests compare with: float64 NumPy written from the paper's formulas, and gradients on every backend; and what
stands for a network where the network is not what is tested."""

import keras
import numpy as np
import pytest

from polynet_keras.data.crops import crop_plan, views
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.engine.network import Network
from polynet_keras.layers import BatchNormalization


def views_of(image: np.ndarray, preprocessing: Preprocessing, crops: int) -> np.ndarray:
    """So many crops of an image, still of values 0 to 255."""
    return views(image, preprocessing, crop_plan(*image.shape[:2], preprocessing, crops))


def watched_calls(monkeypatch, function, *modules: str) -> list[tuple]:
    """A list that takes the arguments of each call that one of the modules makes of a function."""
    calls: list[tuple] = []
    for module in modules:
        name = f"{module}.{function.__name__}"
        monkeypatch.setattr(name, lambda *arguments: calls.append(arguments) or function(*arguments))
    return calls


def few_layers(input_shape=(12, 12, 3), classes: int = 4, kind: type[Network] = Network, **_) -> Network:
    """A model of the class of PolyNets that is none, for what happens around a network; takes `PolyNet`'s arguments."""
    image = keras.Input(input_shape, name="image")
    x = keras.layers.Conv2D(4, 3, name="stem_conv1")(image)
    x = keras.layers.ReLU()(BatchNormalization(name="stem_conv1_bn")(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return kind(image, keras.layers.Dense(classes, "softmax", name="predictions")(x))


def randomize(model: keras.Model, seed: int) -> None:
    """Random parameters with non-trivial BN statistics, of a size that keeps activations near 1."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for variable in layer.weights:
            shape, kind = tuple(variable.shape), variable.name
            if kind == "kernel":
                value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
            elif kind == "gamma":
                value = rng.uniform(0.5, 1.5, shape)
            elif kind in ("beta", "bias", "moving_mean"):
                value = rng.normal(0, 0.2, shape)
            elif kind == "moving_variance":
                value = rng.uniform(0.5, 2.0, shape)
            else:  # scale, survival probability, switches and seeds stay
                continue
            variable.assign(value.astype("float32"))


def need_channels_first_convolutions() -> None:
    """Skips a test where there are none: TensorFlow has them on a CPU by oneDNN, which it takes on newer ones only."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    try:
        tf.nn.conv2d(np.ones((1, 3, 8, 8), "float32"), np.ones((3, 3, 3, 4), "float32"), 1, "SAME", "NCHW")
    except tf.errors.UnimplementedError:
        pytest.skip("TensorFlow on this processor has no channels_first convolution")


def conv2d(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Stride 1, zero padding to the same size; x (batch, height, width, in), kernel (kh, kw, in, out)."""
    kh, kw = kernel.shape[:2]
    padded = np.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(1, 2))
    return np.einsum("bhwikl,klio->bhwo", windows, kernel, optimize=True)


def batch_norm(x: np.ndarray, layer: keras.layers.BatchNormalization) -> np.ndarray:
    """Inference, with the layer's moving statistics."""
    gamma, beta, mean, variance = (
        keras.ops.convert_to_numpy(v).astype("float64")
        for v in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    )
    return (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0.0)


def gradients(model: keras.Model, inputs, weighting: np.ndarray, training: bool = True) -> list[np.ndarray]:
    """d(Σ weighting · model(inputs)) / d(trainable variable), one array for each."""
    backend = keras.backend.backend()
    variables = model.trainable_variables
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(model(inputs, training=training), "float32") * weighting)
        found = tape.gradient(loss, [variable.value for variable in variables])
        return [np.asarray(gradient) for gradient in found]
    if backend == "torch":
        model.zero_grad()
        loss = (model(inputs, training=training).float() * keras.ops.convert_to_tensor(weighting)).sum()
        loss.backward()
        return [keras.ops.convert_to_numpy(variable.value.grad) for variable in variables]
    import jax

    def loss(trainable):
        fixed = [variable.value for variable in model.non_trainable_variables]
        outputs, _ = model.stateless_call(trainable, fixed, inputs, training=training)
        return (outputs.astype("float32") * weighting).sum()

    found = jax.jit(jax.grad(loss))([variable.value for variable in variables])
    return [np.asarray(gradient) for gradient in found]
