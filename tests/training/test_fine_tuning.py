import functools

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.models.parts import PARTS, part_of
from polynet_keras.training.fine_tuning import Phase, fit_in_phases, freeze
from polynet_keras.training.optimizers import RMSprop
from tests.reference import randomize

LOSS = "sparse_categorical_crossentropy"
EAGERLY = {"loss": LOSS, "run_eagerly": True}
"""What is frozen does not depend on how a step runs, and one or two steps are over before a graph would be traced."""


def network(**arguments):
    settings = {"structure": "1 x [ir] | 1 x [ir] | 1 x [ir]", "width": 0.1, "classes": 3}
    model = PolyNet(weights=None, **{**settings, "input_shape": (75, 75, 3), **arguments})
    randomize(model, 0)
    return model


def examples():
    rng = np.random.default_rng(0)
    return rng.normal(1, 2, (8, 75, 75, 3)).astype("float32"), rng.integers(0, 3, 8)


def values(model):
    return {variable.path: np.array(keras.ops.convert_to_numpy(variable)) for variable in model.weights}


def changed_parts(model, before):
    after = values(model)
    return {part_of(path.split("/")[0]) for path, value in before.items() if not np.array_equal(value, after[path])}


def test_every_layer_with_weights_has_a_part():
    model = network(structure="1 x [2-way] | 1 x [poly-3] | 1 x [ir]")
    layers = [layer for layer in model.layers if layer.weights and "sum" not in layer.name]
    assert {part_of(layer.name) for layer in layers} == set(PARTS)
    assert part_of("avg_pool") is None
    assert part_of("stage_apple") is None


@pytest.fixture(scope="module")
def frozen_and_trained():
    """For tests that freeze what they like, and compile and train the network from wherever it is."""
    return network()


FAST = ("reduction_a", "stage_c")


@pytest.mark.parametrize(
    "through", [pytest.param(part, marks=[pytest.mark.slow] * (part not in FAST)) for part in (*PARTS[:-1], None)]
)
def test_frozen_parts_stay_and_others_train(frozen_and_trained, through):
    """Statistics of frozen normalizations among them."""
    model = frozen_and_trained
    freeze(model, through)
    model.compile(RMSprop(1e-3), **EAGERLY)
    before = values(model)
    model.fit(*examples(), batch_size=8, verbose=0)
    frozen = set(PARTS[: PARTS.index(through) + 1]) if through else set()
    assert changed_parts(model, before) == set(PARTS) - frozen


def test_frozen_normalizations_compute_with_their_moving_statistics_in_training():
    model = network(include_top=False, pooling="avg")
    x, _ = examples()
    trained = keras.ops.convert_to_numpy(model(x, training=True))
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    freeze(model, "stage_c")
    found = keras.ops.convert_to_numpy(model(x, training=True))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(trained - expected).max() > 0.1


def test_normalizations_can_be_frozen_alone():
    model = network()
    freeze(model, "stem", normalizations=True)
    model.compile(RMSprop(1e-3), **EAGERLY)
    before = values(model)
    model.fit(*examples(), batch_size=8, verbose=0)
    changed = {path for path, value in values(model).items() if not np.array_equal(value, before[path])}
    assert {path.split("/")[1] for path in changed} == {"kernel", "bias"}
    assert {part_of(path.split("/")[0]) for path in changed} == set(PARTS) - {"stem"}


def test_freezing_less_unfreezes():
    model = network()
    freeze(model, "predictions")
    assert model.trainable_variables == []
    freeze(model, "stem")
    assert {part_of(v.path.split("/")[0]) for v in model.trainable_variables} == set(PARTS) - {"stem"}


@pytest.mark.slow
def test_a_network_inside_another_model():
    base = network(include_top=False, pooling="avg")
    outputs = keras.layers.Dense(3, activation="softmax", name="mine")(base(base.input))
    model = keras.Model(base.input, outputs)
    before = values(model)
    phases = [Phase("stage_c", 1, RMSprop(1e-3)), Phase("stage_b", 1, RMSprop(1e-3))]
    fit_in_phases(model, phases, *examples(), compile_arguments=EAGERLY, network=base, verbose=0)
    assert changed_parts(base, {path: value for path, value in before.items() if "mine" not in path}) == {
        "reduction_b",
        "stage_c",
    }


@pytest.mark.slow
def test_phases_are_one_run():
    class Epochs(keras.callbacks.Callback):
        seen = []

        def on_epoch_begin(self, epoch, logs=None):
            self.seen.append((epoch, len(self.model.trainable_variables)))

    model = network()
    everything = len(model.trainable_variables)
    phases = [Phase("stage_c", 1, RMSprop(1e-3)), Phase(None, 2, RMSprop(1e-4))]
    arguments = {**EAGERLY, "metrics": ["accuracy"]}
    fit_arguments = {"validation_data": examples(), "callbacks": [Epochs()], "verbose": 0}
    history = fit_in_phases(model, phases, *examples(), compile_arguments=arguments, **fit_arguments)
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        ("loss", "accuracy", "val_loss", "val_accuracy"), 3
    )
    assert Epochs.seen == [(0, 2), (1, everything), (2, everything)]


@pytest.mark.slow
def test_phases_can_be_used_again():
    """Each use begins with a new optimizer, of the same settings."""
    optimizer = RMSprop(1e-3, rho=0.8, learning_rate_factors={"stem": 0.5})
    phases = [Phase(None, 1, optimizer)] * 2
    for _ in range(2):
        model = network()
        fit_in_phases(model, phases, *examples(), compile_arguments=EAGERLY, batch_size=4, verbose=0)
        assert int(model.optimizer.iterations) == 2
        assert model.optimizer.get_config() == optimizer.get_config()
    assert not optimizer.built


def test_a_callback_ends_all_phases():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    phases = [Phase("stage_c", 2, RMSprop(1e-3)), Phase(None, 2, RMSprop(1e-3))]
    history = fit_in_phases(network(), phases, *examples(), compile_arguments=EAGERLY, callbacks=[Stop()], verbose=0)
    assert len(history["loss"]) == 1


@pytest.mark.slow
def test_learning_rates_differ_by_part(tmp_path):
    """One step of RMSprop from a fresh state moves each variable by rate · g / √((1 − ρ) g²): by the rate alone."""
    model = network()
    factors = {"stem": 0.0, "stage_a": 0.01, "stage_c": 2.0}
    model.compile(RMSprop(1e-3, epsilon=1e-20, learning_rate_factors=factors), LOSS)
    before = values(model)
    model.fit(*examples(), batch_size=8, verbose=0)
    step = 1e-3 / np.sqrt(0.1)
    for variable in model.trainable_variables:
        moved = np.abs(keras.ops.convert_to_numpy(variable) - before[variable.path]).max()
        expected = step * factors.get(part_of(variable.path.split("/")[0]), 1.0)
        assert moved == pytest.approx(expected, rel=0.05, abs=1e-9), variable.path
    model.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    assert loaded.optimizer.learning_rate_factors == factors
    loaded.fit(*examples(), batch_size=8, verbose=0)
    np.testing.assert_array_equal(loaded.get_layer("stem_conv1").get_weights()[0], before["stem_conv1/kernel"])


@functools.cache
def untrained():
    """For calls that are refused."""
    return network()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: freeze(untrained(), "stage_d"), "through='stage_d' must be one of stem, stage_a"),
        (lambda: freeze(keras.Sequential([keras.layers.Dense(2)]), "stem"), "has no layer of a PolyNet"),
        (lambda: Phase("top", 1, RMSprop()), "frozen_through='top' must be one of"),
        (lambda: Phase("stem", 0, RMSprop()), "epochs=0 must be an integer of at least 1"),
        (lambda: Phase("stem", 1, "sgd"), "optimizer must be a Keras optimizer; got str"),
        (lambda: RMSprop(learning_rate_factors={"head": 1.0}), "learning_rate_factors='head' must be one of stem"),
        (
            lambda: RMSprop(learning_rate_factors={"stem": -1.0}),
            r"\['stem'\]=-1.0 must be a finite",
        ),
        (
            lambda: RMSprop(learning_rate_factors={"stem": 0.1}).build([keras.Variable([1.0])]),
            "none of its variables is trained here",
        ),
        (
            lambda: fit_in_phases(untrained(), [], compile_arguments={}),
            r"phases must be a list of at least one Phase; got list",
        ),
        (
            lambda: fit_in_phases(untrained(), Phase(None, 1, RMSprop()), compile_arguments={}),
            "must be a list",
        ),
        (
            lambda: fit_in_phases(untrained(), [Phase(None, 1, RMSprop())], iter(()), compile_arguments={}),
            "the data is an iterator, which the first phase would use up",
        ),
        (
            lambda: fit_in_phases(untrained(), [Phase("predictions", 1, RMSprop())], compile_arguments={}),
            "frozen_through='predictions' leaves nothing to train in 'polynet'",
        ),
        (
            lambda: RMSprop(learning_rate_factors=["stem"]),
            r"=\['stem'\] must map parts to factors",
        ),
        (
            lambda: fit_in_phases(untrained(), [Phase(None, 1, RMSprop())], compile_arguments={}, epochs=3),
            "epochs is decided by the phases",
        ),
    ],
)
def test_mistakes(make, message):
    with pytest.raises(ValueError, match=message):
        make()
