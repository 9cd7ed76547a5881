"""A training that goes on sees the examples that it would have seen, each once; where it cannot, `fit` says so."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.python.eager import context

from polynet_keras.checkpoints.callback import Checkpoints
from polynet_keras.checkpoints.position import Progress
from polynet_keras.engine.distributed_model import DistributedTraining

BATCH, EXAMPLES, EPOCHS = 2, 8, 4
STEPS = EXAMPLES // BATCH


class Net(DistributedTraining, keras.Model):
    """Remembers the numbers of the examples that it was trained on."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.seen = []

    def build(self, shape):
        self.dense.build((None, 1))
        self.built = True

    def call(self, x, training=None):
        if training:
            tf.py_function(lambda v: self.seen.extend(int(i) for i in v.numpy().ravel()), [x], [])
        return self.dense(x)


class Stop(keras.callbacks.Callback):
    """Ends the training like a Ctrl-C after so many steps."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def numbered(order=None):
    numbers = np.arange(EXAMPLES, dtype="float32") if order is None else np.asarray(order, "float32")
    return tf.data.Dataset.from_tensor_slices((numbers[:, None], np.zeros((EXAMPLES, 1), "float32")))


class Numbers(keras.utils.PyDataset):
    """Shuffles after each epoch, with a seed."""

    def __init__(self, shuffles=True):
        super().__init__()
        self.shuffles = shuffles
        self.rng = np.random.default_rng(0)
        self.order = np.arange(EXAMPLES)

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        numbers = self.order[index * BATCH : (index + 1) * BATCH]
        return numbers[:, None].astype("float32"), np.zeros((BATCH, 1), "float32")

    def on_epoch_end(self):
        if self.shuffles:
            self.order = self.rng.permutation(EXAMPLES)


def generator():
    rng = np.random.default_rng(0)
    while True:
        for part in np.split(rng.permutation(EXAMPLES), STEPS):
            yield part[:, None].astype("float32"), np.zeros((BATCH, 1), "float32")


def images(folder):
    """Of a folder of pictures, shuffled in each epoch; a picture's colour is its number."""
    for number in range(EXAMPLES):
        path = folder / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), number).save(path)
    dataset = keras.utils.image_dataset_from_directory(
        folder, image_size=(4, 4), color_mode="grayscale", batch_size=BATCH, seed=3, verbose=False
    )
    return dataset.map(lambda x, y: (x[:, 0, 0, :], tf.cast(y[:, None], "float32")))


ENDLESS = {"steps_per_epoch": STEPS}
DATA = {
    "shuffled": (lambda folder: numbered().shuffle(EXAMPLES, seed=0).batch(BATCH), {}),
    "shuffled_twice": (
        lambda folder: numbered().shuffle(3, seed=0).map(lambda *x: x).batch(BATCH).shuffle(2, seed=1).prefetch(2),
        {},
    ),
    "concatenated": (
        lambda folder: (
            numbered().take(4).shuffle(4, seed=0).concatenate(numbered().skip(4).shuffle(4, seed=1)).batch(BATCH)
        ),
        {},
    ),
    "cached": (lambda folder: numbered().shuffle(8, seed=0).cache().shuffle(8, seed=1).batch(BATCH), {}),
    "of_unknown_length": (
        lambda folder: numbered().shuffle(EXAMPLES, seed=0).filter(lambda x, y: True).batch(BATCH),
        {},
    ),
    "in_one_order": (
        lambda folder: numbered().shuffle(EXAMPLES, seed=0, reshuffle_each_iteration=False).batch(BATCH),
        {},
    ),
    "endless": (lambda folder: numbered().shuffle(EXAMPLES, seed=0).repeat().batch(BATCH), ENDLESS),
    "of_epochs_length": (lambda folder: numbered().shuffle(EXAMPLES, seed=0).batch(BATCH), ENDLESS),
    "within_interleave": (
        lambda folder: (
            tf.data.Dataset.range(2)
            .interleave(lambda i: numbered().skip(4 * i).take(4).shuffle(8, seed=0))
            .shuffle(8, seed=1)
            .batch(BATCH)
        ),
        {},
    ),
    "weighted": (lambda folder: numbered().shuffle(EXAMPLES, seed=0).batch(BATCH), {"class_weight": {0: 2.0}}),
    "py_dataset": (lambda folder: Numbers(), {"shuffle": False}),
    "generator": (lambda folder: generator(), ENDLESS),
    "images": (images, {}),
}


def make(kind, folder):
    data, options = DATA[kind]
    return data(folder / "images"), options


def fit(data, options, folder=None, stop=None, strategy=None, **more):
    """The examples that were seen, and the position that `fit` began at."""
    with (strategy or tf.distribute.get_strategy()).scope():
        model = Net()
        model.build((None, 1))
        model.compile(keras.optimizers.SGD(1e-3), "mse")
    callbacks = [Checkpoints(folder, every_steps=1, at_epoch_ends=True, **more)] if folder else []
    begin = callbacks[0].position if folder else None
    if stop:
        callbacks.append(Stop(stop))
    try:
        options = {"validation_data": numbered().batch(4), **options}
        model.fit(data, epochs=EPOCHS, verbose=0, callbacks=callbacks, **options)
    except KeyboardInterrupt:
        assert stop
    return model.seen, begin


ALIKE = ("shuffled", "shuffled_twice", "concatenated", "cached", "generator")
ALIKE += ("of_epochs_length", "of_unknown_length", "images", "weighted", "within_interleave")
"""What is like another kind: of one shuffle and of two, of a known length and of `steps_per_epoch`, of folders."""


@pytest.mark.parametrize("stop", [9, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (7, 8, 15))])
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in ALIKE)) for kind in DATA])
def test_the_order_of_the_epochs_is_that_of_a_run_that_went_through(tmp_path, kind, stop, caplog):
    """It is broken off before a last step, after one, at the first step of an epoch, and in the last epoch."""
    expected, _ = fit(*make(kind, tmp_path))
    assert len({tuple(expected[i * EXAMPLES : (i + 1) * EXAMPLES]) for i in range(EPOCHS)}) == (
        1 if kind == "in_one_order" else EPOCHS
    )
    part, _ = fit(*make(kind, tmp_path), tmp_path / "checkpoints", stop)
    assert part == expected[: stop * BATCH]
    rest, begin = fit(*make(kind, tmp_path), tmp_path / "checkpoints")
    assert begin.global_step == stop - 1
    assert rest == expected[begin.global_step * BATCH :]
    assert "twice" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["endless", "shuffled", "shuffled_twice", "of_epochs_length"])
def test_with_a_strategy(tmp_path, kind):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    expected, _ = fit(*make(kind, tmp_path), strategy=strategy)
    fit(*make(kind, tmp_path), tmp_path / "checkpoints", 11, strategy=strategy)
    rest, begin = fit(*make(kind, tmp_path), tmp_path / "checkpoints", strategy=strategy)
    assert rest == expected[begin.global_step * BATCH :]


def test_a_dataset_that_was_used_before(tmp_path, caplog):
    """As in a notebook: the first fit, broken off, has used the dataset's first orders."""
    data, options = make("shuffled", tmp_path)
    fit(data, options, tmp_path / "checkpoints", 9)
    _, begin = fit(data, options, tmp_path / "checkpoints", 2)
    assert begin.global_step == 8
    # The third epoch's order was used up by the step that came to nothing.
    assert "was iterated over" in caplog.text
    caplog.clear()
    fit(make("shuffled", tmp_path)[0], options, tmp_path / "checkpoints", 2)
    assert "was iterated over" not in caplog.text


def test_another_seed_is_told(tmp_path, caplog):
    fit(numbered().shuffle(8, seed=0).batch(BATCH), {}, tmp_path, 6)
    fit(numbered().shuffle(8, seed=1).batch(BATCH), {}, tmp_path, 1)
    assert "the data are shuffled with other seeds than before the checkpoint" in caplog.text


ARRAYS = np.arange(8.0)[:, None], np.zeros((8, 1))
RANDOM = {
    "dataset": (lambda: numbered().shuffle(8).batch(BATCH), {}, r"without a seed, write .shuffle\(n, seed=0\)"),
    "before_a_map": (
        lambda: numbered().shuffle(8).map(lambda *x: x).batch(BATCH),
        {},
        "shuffled without a seed",
    ),
    "one_of_two": (
        lambda: tf.data.Dataset.zip((numbered(), numbered().shuffle(8))).map(lambda a, b: a).batch(BATCH),
        {},
        "shuffled without a seed",
    ),
    "within_interleave": (
        lambda: tf.data.Dataset.range(2).interleave(lambda i: numbered().shuffle(8).take(4)).batch(BATCH),
        {},
        "shuffled without a seed",
    ),
    "repeated": (
        lambda: numbered().take(4).shuffle(4, seed=0).repeat(2).batch(BATCH),
        {},
        r"write .repeat\(n\) before .shuffle",
    ),
    "py_dataset": (lambda: Numbers(), {"shuffle": True}, "shuffles a PyDataset with Python's own generator"),
    "arrays": (lambda: ARRAYS[0], {"y": ARRAYS[1]}, "shuffles arrays without a seed, call keras.utils.set_random_seed"),
}


@pytest.mark.parametrize(("data", "options", "message"), RANDOM.values(), ids=RANDOM)
def test_what_cannot_be_right_is_told_once_at_the_start(tmp_path, caplog, data, options, message, monkeypatch):
    monkeypatch.setattr(context, "global_seed", lambda: None)
    fit(data(), options, tmp_path / "a", 1)
    assert len([r for r in caplog.records if "twice" in r.getMessage()]) == 1
    assert re.search(message, caplog.text)
    caplog.clear()
    fit(data(), options, tmp_path / "b", 1, skip_data=False)  # that the data begin where they should is then the user's
    assert "twice" not in caplog.text


@pytest.mark.parametrize("part", [lambda data: data, lambda data: data.take(1)], ids=["all", "a_part"])
def test_validation_of_the_shuffled_data_is_told(tmp_path, caplog, part):
    data = numbered().shuffle(8, seed=0).batch(BATCH)
    fit(data, {"validation_data": part(data)}, tmp_path, 1)
    assert "validation reads from the dataset that is shuffled for training" in caplog.text


@pytest.mark.slow
def test_arrays_with_a_seed_come_in_one_order(tmp_path, caplog):
    def seeded():
        keras.utils.set_random_seed(0)
        return ARRAYS[0], {"y": ARRAYS[1], "batch_size": BATCH}

    expected, _ = fit(*seeded())
    fit(*seeded(), tmp_path, 7)
    rest, begin = fit(*seeded(), tmp_path)
    assert rest == expected[begin.global_step * BATCH :]
    assert "twice" not in caplog.text


def test_checkpoints_of_older_versions_go_on(tmp_path, monkeypatch):
    written = Progress.to_json

    def older(progress):
        return {
            name: value
            for name, value in written(progress).items()
            if name not in ("iterators", "iterators_read", "seeds")
        }

    monkeypatch.setattr(Progress, "to_json", older)
    fit(*make("in_one_order", tmp_path), tmp_path / "checkpoints", 6)
    expected, _ = fit(*make("in_one_order", tmp_path))
    rest, begin = fit(*make("in_one_order", tmp_path), tmp_path / "checkpoints")
    assert rest == expected[begin.global_step * BATCH :]
