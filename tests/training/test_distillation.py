"""What a teacher does to the loss: against the paper's formula in float64 NumPy."""

import json
import re
import subprocess

import keras
import numpy as np
import pytest

from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation.loading import Runtime, TrainedModel
from polynet_keras.training.distillation import teach
from tests.children import Child
from tests.reference import few_layers, randomize

NAMES = ("a", "b", "c", "d")
OURS = Preprocessing(12, 14, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def taught(teacher=None, temperature=2.0, weight=0.7, optimizer="sgd", loss="sparse_categorical_crossentropy"):
    """A model, compiled and taught, and its teacher."""
    model, network = few_layers(), few_layers()
    randomize(model, 1)
    randomize(network, 2)
    teacher = teacher or TrainedModel("teacher", network, OURS, NAMES)
    model.compile(optimizer, loss, metrics=["accuracy"])
    teach(model, teacher, NAMES, OURS, temperature, weight)
    return model, teacher


def images(count=6, size=12):
    return np.random.default_rng(3).normal(size=(count, size, size, 3)).astype("float32")


def softened(probabilities, temperature):
    """Probabilities of the same logits, divided by the temperature."""
    powers = np.float64(probabilities) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def expected_loss(p, q, shares, temperature, weight, weights=1.0):
    """Of the teacher's and the model's probabilities."""
    labels = -np.sum(shares * np.log(np.float64(q)), axis=1)
    p, q = softened(p, temperature), softened(q, temperature)
    return np.mean(weights * ((1 - weight) * labels + weight * temperature**2 * np.sum(p * np.log(p / q), axis=1)))


def training_loss(model, x, y, weights=None):
    """That of a training step in which normalizations have the statistics that they have in inference."""
    loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=False), sample_weight=weights, training=True)
    return float(keras.ops.convert_to_numpy(loss))


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 0.5), (4.0, 0.9), (2.5, 1.0)])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_the_papers(temperature, weight, weighted):
    model, teacher = taught(temperature=temperature, weight=weight)
    x, y = images(), np.array([0, 1, 2, 3, 3, 0])
    weights = np.array([1, 2, 0, 0.5, 1, 3], "float32") if weighted else None
    p, q = (one.predict_on_batch(x) for one in (teacher.network, model))
    expected = expected_loss(p, q, np.eye(4)[y], temperature, weight, 1.0 if weights is None else weights)
    found = training_loss(model, keras.ops.convert_to_tensor(x), y, weights)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found > 0.05


def test_labels_may_be_shares():
    model, teacher = taught(loss="categorical_crossentropy")
    x, shares = images(), np.random.default_rng(0).dirichlet(np.ones(4), 6).astype("float32")
    p, q = (one.predict_on_batch(x) for one in (teacher.network, model))
    assert training_loss(model, keras.ops.convert_to_tensor(x), shares) == pytest.approx(
        expected_loss(p, q, shares, 2.0, 0.7), rel=1e-5
    )


def test_the_gradient_is_that_of_soft_targets():
    """For weight 1: of the head's bias, T · (q - p), as the paper has it for the logits."""
    model, teacher = taught(temperature=3.0, weight=1.0, optimizer=keras.optimizers.SGD(1.0))
    for layer in model.layers:
        layer.trainable = layer.name == "predictions"
    model.compile(model.optimizer, "sparse_categorical_crossentropy")
    teach(model, teacher, NAMES, OURS, 3.0, 1.0)
    x = images()
    p, q = (softened(one.predict_on_batch(x), 3.0) for one in (teacher.network, model))
    before = model.layers[-1].bias.numpy()
    weights = [variable.numpy() for variable in teacher.network.weights]
    model.train_on_batch(x, np.zeros(6, int))
    np.testing.assert_allclose(before - model.layers[-1].bias.numpy(), 3.0 * (q - p).mean(axis=0), rtol=1e-3)
    for variable, value in zip(teacher.network.weights, weights, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_evaluation_stays_as_it_is_and_nothing_of_the_teacher_is_saved(tmp_path):
    model, _ = taught()
    plain = few_layers()
    plain.set_weights(model.get_weights())
    plain.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = images(), np.array([0, 1, 2, 3, 3, 0])
    assert model.test_on_batch(x, y) == pytest.approx(plain.test_on_batch(x, y), rel=1e-6)
    model.train_on_batch(x, y)
    model.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    assert len(loaded.weights) == len(model.weights) == len(plain.weights)
    np.testing.assert_array_equal(loaded.predict_on_batch(x), model.predict_on_batch(x))
    loss = keras.losses.SparseCategoricalCrossentropy()(y, loaded(x))
    assert float(loaded.compute_loss(x=x, y=y, y_pred=loaded(x))) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_a_teacher_of_another_protocol_sees_its_own(order):
    """Another size, other normalization and order of channels, and classes in another order, one of them unknown."""
    theirs = Preprocessing(20, 20, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), channel_order=order)
    network = few_layers(input_shape=(20, 20, 3), classes=5)
    randomize(network, 2)
    teacher = TrainedModel("teacher", network, theirs, ("d", "x", "b", "a", "c"))
    model, _ = taught(teacher)
    pixels = np.random.default_rng(5).integers(0, 256, (3, 12, 12, 3)).astype("uint8")
    x = np.stack([OURS.normalize(image) for image in pixels.astype("float32")])
    enlarged = np.stack([theirs.resized(image, (20, 20)) for image in pixels])
    p = network.predict_on_batch(np.stack([theirs.normalize(image) for image in enlarged]))[:, [3, 2, 4, 0]]
    y = np.array([0, 1, 2])
    expected = expected_loss(
        p / p.sum(axis=1, keepdims=True), model.predict_on_batch(x), np.eye(4)[y], temperature=2.0, weight=0.7
    )
    assert training_loss(model, keras.ops.convert_to_tensor(x), y) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (
            ("a", "b", "c", "x"),
            "teacher='teacher' does not tell these classes of the data: 'd'; it knows",
        ),
        (
            ("a", "b", "c", "d", "d"),
            "teacher='teacher' does not tell these classes of the data: 'd'; it knows",
        ),
        ("grey", "teacher='teacher' takes images of 1 channels, and the data have 3"),
        ("exported", "teacher is exported: name the model that it was exported from"),
    ],
)
def test_teachers_that_cannot_teach(teacher, message):
    names, protocol, model = NAMES, OURS, None
    if teacher == "grey":
        protocol, model = Preprocessing(12, 14, (0.5,), (0.5,)), few_layers(input_shape=(12, 12, 1))
    elif teacher == "exported":
        model = Runtime(lambda images: images, "0")
    else:
        names, model = teacher, few_layers(classes=len(teacher))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        taught(TrainedModel("teacher", model, protocol, names))


ON_REPLICAS = """
import json, sys
import numpy as np, tensorflow as tf
processor = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.training.test_distillation import images, taught
losses = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        model, _ = taught(temperature=3.0, weight=0.8)
    for layer in model.layers:
        layer.trainable = layer.name == "predictions"  # normalizations take no statistics of a replica's part
    for count in (6, 5, 1):  # of one image the second replica has none
        x, y = images(count), np.arange(count) % 4
        losses.append(float(model.train_on_batch(x, y, np.linspace(0.5, 2, count).astype("float32"))[0]))
    losses.append([float(value) for value in model.layers[-1].bias.numpy()])
print(json.dumps([losses[:4], losses[4:]]))
"""


@pytest.mark.slow
def test_replicas_learn_as_one_device_does():
    """Of weighted examples, of which one replica may have fewer, or none."""
    child = Child(ON_REPLICAS, stderr=subprocess.PIPE)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err[-3000:]
    (*losses, bias), (*of_two, their_bias) = json.loads(out.splitlines()[-1])
    assert of_two == pytest.approx(losses, rel=1e-5)
    assert their_bias == pytest.approx(bias, rel=1e-4, abs=1e-6)
    assert max(map(abs, bias)) > 1e-3
