"""Training on many replicas gives what training on one device gives: see `scenarios.py`."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from filelock import FileLock

from polynet_keras import PolyNet
from polynet_keras.engine.building import check_keras
from polynet_keras.engine.distributed_model import DistributedModel
from polynet_keras.engine.network import Network
from tests import children
from tests.engine.scenarios import SCENARIOS
from tests.processes import run_workers

SCRIPT = Path(__file__).with_name("scenarios.py")
# All others are float32 throughout. Of a step in float64 the shares of uneven parts are still float32.
TOLERANCE = {"loss_scaling": 2e-3, "gradients_in_float16": 2e-3, "polynet": 1e-6}
NAMES = [scenario.__name__ for scenario in SCENARIOS]


def run_scenarios(folder: Path, *arguments: str) -> None:
    done = children.run(SCRIPT, *arguments, str(folder / "0.json"), timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


def run_in_two_workers(folder: Path) -> None:
    ended = run_workers(2, SCRIPT, "ours", "multi_worker", "1", str(folder), timeout=900, fresh=True)
    assert [worker.code for worker in ended] == [0, 0], ended[0].output[-3000:] + ended[1].output[-3000:]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Reads what each process of a run of the scenarios has found. It takes minutes, so that whichever process of
    pytest-xdist asks first has it run, and all others wait for that."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # all processes see that one

    def read(name: str, run: Callable[[Path], None]) -> list[dict]:
        results = folder / name
        with FileLock(f"{results}.lock"):
            if not results.exists():
                running = tmp_path_factory.mktemp(name)
                run(running)
                running.rename(results)
        return [json.loads(file.read_text()) for file in sorted(results.glob("*.json"))]

    return read


@pytest.fixture(scope="module")
def expected(found):
    """Keras's own model on one device."""
    return found("keras", lambda folder: run_scenarios(folder, "keras", "none", "1"))[0]


@pytest.fixture(scope="module")
def mirrored(found):
    return found("mirrored", lambda folder: run_scenarios(folder, "ours", "mirrored", "4"))[0]


@pytest.fixture(scope="module")
def workers(found):
    """Two processes: what each of them found."""
    return found("workers", run_in_two_workers)


def assert_close(found: dict, expected: dict, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert len(found[name]) == len(values)
        for ours, theirs in zip(found[name], values, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", NAMES)
def test_four_replicas_give_what_one_gives(scenario, mirrored, expected):
    assert_close(mirrored[scenario], expected[scenario], TOLERANCE.get(scenario, 1e-5))


@pytest.mark.slow
@pytest.mark.parametrize("scenario", NAMES)
def test_two_workers_give_what_one_gives(scenario, workers, expected):
    for found in workers:
        assert_close(found[scenario], expected[scenario], TOLERANCE.get(scenario, 1e-5))
    assert workers[0][scenario] == workers[1][scenario]  # bit for bit: both made the same update


PLAIN = ("everything", "few_examples_first", "idle_replicas", "subclassed", "transfer_learning")


@pytest.mark.slow
def test_two_workers_train_kerass_own_models(expected, tmp_path):
    """The usual idiom of transfer learning among them: without our repair it ends in an error of PerReplica values."""
    arguments = ("plain", "multi_worker", "1", str(tmp_path), *PLAIN)
    ended = run_workers(2, SCRIPT, *arguments, timeout=600, fresh=True)
    assert [worker.code for worker in ended] == [0, 0], ended[0].output[-3000:] + ended[1].output[-3000:]
    for file in sorted(tmp_path.glob("*.json")):
        found = json.loads(file.read_text())
        assert found.keys() == set(PLAIN)
        for name in PLAIN:
            assert_close(found[name], expected[name], TOLERANCE.get(name, 1e-5))


@pytest.mark.slow
def test_what_is_frozen_does_not_move(mirrored, workers):
    """Not by the rounding of a mean over replicas, either: batches of 7 are shared unevenly."""
    for found in (mirrored, *workers):
        moved = found["frozen"]["more"]
        assert len(moved) == 6
        assert set(np.ravel(moved)) == {0.0}


REPLICAS = """
import json, sys, keras, numpy as np, tensorflow as tf
from polynet_keras.engine.distributed_model import DistributedModel, DistributedTraining
devices = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
"""


def on_two_replicas(code: str, *arguments: str) -> str:
    done = children.run(REPLICAS + code, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def test_replicas_draw_apart_and_agree_on_the_next_draw():
    """A layer that adds a uniform number to each example; two equal examples, one on each replica."""
    found = on_two_replicas("""
class Noise(keras.layers.Layer):
    def __init__(self, agree):
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(3)
        self.draws_agree = agree
    def call(self, x, training=None):
        return x + keras.random.uniform((1, 1), seed=self.seed_generator) if training else x

class Outputs(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return (y_pred[:, 0] - y_true) ** 2

def run(agree, batch):
    with strategy.scope():
        x = keras.Input((1,))
        layer = Noise(agree)
        model = DistributedModel(x, layer(x))
        model.compile("sgd", Outputs())
    values = []
    for number in range(batch):
        # With one example in the batch only one replica has any: its square is the loss.
        zeros = np.zeros((2, 1), "float32")
        target = np.array([0.0, 0.0], "float32")
        values.append(model.train_on_batch(zeros, target))
    return values, layer.seed_generator.state.numpy().tolist()

print(json.dumps({"apart": run(False, 2), "agree": run(True, 2)}))
""")
    found = json.loads(found)
    generator = keras.random.SeedGenerator(3)
    draws = [float(keras.random.uniform((1, 1), seed=generator)[0, 0]) for _ in range(2)]
    squares, state = found["agree"]
    np.testing.assert_allclose(squares, np.square(draws), rtol=1e-5)
    assert state == [3, 2]
    squares, state = found["apart"]
    assert state == [3, 2]
    assert all(abs(square - draw**2) > 1e-3 for square, draw in zip(squares, draws, strict=True))
    others = [2 * square - draw**2 for square, draw in zip(squares, draws, strict=True)]
    assert all(0 <= other <= 1 for other in others)  # the second replica's own squares


def test_moving_statistics_are_means_over_the_examples_of_all_replicas():
    found = json.loads(
        on_two_replicas("""
from polynet_keras.layers import BatchNormalization
with strategy.scope():
    x = keras.Input((1, 1, 3))
    model = DistributedModel(x, keras.layers.Flatten()(BatchNormalization(momentum=0.5)(x)))
    model.compile(keras.optimizers.SGD(0.0), "mse")
data = np.random.default_rng(0).normal(3, 2, (5, 1, 1, 3)).astype("float32")
model.fit(data, np.zeros((5, 3)), batch_size=5, verbose=0, shuffle=False)
print(json.dumps([w.tolist() for w in model.get_weights()[2:]]))
""")
    )
    data = np.random.default_rng(0).normal(3, 2, (5, 1, 1, 3)).astype("float32").reshape(5, 3)
    parts = [data[:3], data[3:]]  # as the strategy shares five out
    means = sum(len(part) * part.mean(0) for part in parts) / 5
    variances = sum(len(part) * part.var(0) for part in parts) / 5
    np.testing.assert_allclose(found[0], 0.5 * means, rtol=1e-5)
    np.testing.assert_allclose(found[1], 0.5 + 0.5 * variances, rtol=1e-5)


@pytest.mark.slow
def test_a_training_step_of_ones_own_sees_its_part_and_logs_are_means():
    found = json.loads(
        on_two_replicas("""
class Own(DistributedTraining, keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2) / 2
        self.optimizer.apply_gradients(zip(tape.gradient(loss, self.trainable_variables), self.trainable_variables))
        return {"squares": 2 * loss}

with strategy.scope():
    x = keras.Input((1,))
    model = Own(x, keras.layers.Dense(1, kernel_initializer="ones")(x))
    model.compile(keras.optimizers.SGD(0.1))
data = np.arange(8, dtype="float32").reshape(8, 1)
history = model.fit(data, 2 * data, batch_size=8, verbose=0, shuffle=False)
print(json.dumps([history.history["squares"][0], model.get_weights()[0][0, 0].item()]))
""")
    )
    x = np.arange(8.0)
    assert found[0] == pytest.approx(np.mean(x**2), rel=1e-6)
    assert found[1] == pytest.approx(1 + 0.1 * 2 * np.mean(x**2), rel=1e-6)


REFUSED = [
    ("with strategy.scope():\n    model.fit(x, y)", "call model.fit() outside of strategy.scope()"),
    (
        "model.loss = [keras.losses.MeanSquaredError(), keras.losses.MeanSquaredError(reduction='sum')]\n"
        "model.fit(x, y, verbose=0)",
        "all losses need one kind of reduction; got sum, sum_over_batch_size",
    ),
    (
        "model.loss = keras.losses.MeanSquaredError(reduction='none')\nmodel.fit(x, y, verbose=0)",
        "a loss needs a reduction, but reduction='none' leaves a number for each example",
    ),
    (
        "model.compile(keras.optimizers.SGD(0.1), 'mse')\nmodel.fit(x, y, verbose=0)",
        "was made outside of strategy.scope(); make it, and call compile(), inside",
    ),
    (
        "model = DistributedModel(i, keras.layers.Dense(1)(i))\nmodel.fit(x, y, verbose=0)",
        "You must call `compile()` before",
    ),
    (
        "model.gradient_dtype = 'half'\nmodel.fit(x, y, verbose=0)",
        "gradient_dtype='half' must be one of float32, float16",
    ),
]

TRIES = """
told = {}
for code in json.loads(sys.argv[1]):
    with strategy.scope():
        i = keras.Input((1,))
        model = DistributedModel(i, keras.layers.Dense(1)(i))
        model.compile("sgd", "mse")
    x = y = np.zeros((4, 1), "float32")
    try:
        exec(code)
    except Exception as error:
        told[code] = [type(error).__name__, " ".join(str(error).split())]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told():
    """By code, the kind of error that it raised and what that says: one process tries them all."""
    return json.loads(on_two_replicas(TRIES, json.dumps([code for code, _ in REFUSED])))


@pytest.mark.parametrize(("code", "message"), REFUSED)
def test_what_would_go_wrong_is_refused(told, code, message):
    kind, text = told[code]
    assert kind == "ValueError"
    assert message in text


def test_only_the_chief_is_given_writers(monkeypatch):
    class Table(keras.callbacks.CSVLogger):
        pass

    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        inputs = keras.Input((3,))
        model = DistributedModel(inputs, keras.layers.Dense(2)(inputs))
        model.compile("sgd", "mse")
    callbacks = [Table("table.csv"), keras.callbacks.EarlyStopping()]
    of_chief = model._on_this_worker("fit", (), {"callbacks": callbacks})
    assert of_chief["callbacks"] == callbacks
    monkeypatch.setattr("polynet_keras.cluster.workers.is_chief", lambda strategy: False)
    of_another = model._on_this_worker("fit", (), {"callbacks": callbacks})
    assert of_another["callbacks"] == callbacks[1:]
    assert of_another["verbose"] == 0


def test_without_a_strategy_it_is_kerass_model(tmp_path):
    inputs = keras.Input((3,))
    model = DistributedModel(inputs, keras.layers.Dense(2)(inputs))
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    model.save(tmp_path / "net.keras")
    again = keras.saving.load_model(tmp_path / "net.keras")
    assert type(again) is DistributedModel
    np.testing.assert_array_equal(again.predict(np.ones((1, 3)), verbose=0), model.predict(np.ones((1, 3)), verbose=0))


def test_a_keras_with_other_internals_is_named():
    class Moved:
        _compile_loss = _loss_tracker = None

    with pytest.raises(RuntimeError, match=r"lack _call_has_training_arg, .*, which distributed training uses"):
        check_keras(Moved())


@pytest.mark.slow
def test_polynets_are_distributed_models():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        model = PolyNet(
            weights=None, structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.1, input_shape=(75, 75, 3), classes=2
        )  # fmt: skip
    assert isinstance(model, Network)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(np.zeros((3, 75, 75, 3)), np.zeros(3), batch_size=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
