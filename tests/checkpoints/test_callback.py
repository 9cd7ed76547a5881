"""Trainings that are killed, interrupted or damaged, and go on: compared, bit by bit, with some that ran through."""

import signal
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.checkpoints import model_state
from polynet_keras.checkpoints.callback import Checkpoints
from polynet_keras.checkpoints.files import CheckpointFiles
from polynet_keras.checkpoints.interruption import Preempted
from polynet_keras.checkpoints.position import Position
from polynet_keras.engine.distributed_model import DistributedModel, DistributedTraining
from tests.checkpoints.endings import At, KilledError, kill, terminate

EXAMPLES, BATCH = 44, 8  # six steps an epoch, the last one of four examples
STEPS = 6


class Counter(keras.callbacks.Callback):
    """A callback with a state of its own: the steps it saw, and the losses of epochs, as an array."""

    def __init__(self):
        super().__init__()
        self.steps, self.losses = 0, np.zeros(0)

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1

    def on_epoch_end(self, epoch, logs=None):
        self.losses = np.append(self.losses, logs["loss"])

    def get_state(self):
        return {"steps": self.steps, "losses": self.losses}

    def set_state(self, state):
        self.steps, self.losses = state["steps"], state["losses"]


def examples():
    rng = np.random.default_rng(0)
    return rng.normal(size=(EXAMPLES, 6)).astype("float32"), rng.integers(0, 3, EXAMPLES)


def dataset():
    return tf.data.Dataset.from_tensor_slices(examples()).batch(BATCH)


def endless(first_step=0):
    """Shuffled anew in each round."""
    shuffled = tf.data.Dataset.from_tensor_slices(examples()).shuffle(20, seed=3, reshuffle_each_iteration=True)
    return shuffled.repeat().batch(BATCH).skip(first_step)


def compiled(optimizer="sgd", *, units=8, policy=None, metrics=("accuracy",), **options):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,))
    x = keras.layers.Dense(units, activation="relu", dtype=policy)(inputs)
    x = keras.layers.BatchNormalization(dtype=policy)(keras.layers.Dropout(0.3, dtype=policy)(x))
    model = DistributedModel(inputs, keras.layers.Dense(3, activation="softmax", dtype="float32")(x))
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=list(metrics), **options)
    return model


def values(model):
    """All that a training leaves in a model."""
    return [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]


def assert_same(one, other):
    """(history, model) of two trainings."""
    assert one[0].history == other[0].history
    assert one[0].epoch == other[0].epoch
    for a, b in zip(values(one[1]), values(other[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def averaged_rmsprop():
    return {"optimizer": keras.optimizers.RMSprop(0.01, momentum=0.5, use_ema=True, ema_momentum=0.9)}


def accumulating_adam():
    return {"optimizer": keras.optimizers.Adam(0.01, gradient_accumulation_steps=4, use_ema=True, clipnorm=0.5)}


def scaled_adam():
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01), initial_scale=2.0**20, dynamic_growth_steps=3
    )
    return {"optimizer": optimizer, "policy": "mixed_float16", "steps_per_execution": 2}


def several_steps_an_execution():
    return {"optimizer": "adam", "steps_per_execution": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "data", "killed_at"),
    [
        (averaged_rmsprop, dataset, [3, 6]),
        (accumulating_adam, endless, [9, 3]),
        (scaled_adam, dataset, [7]),
        (several_steps_an_execution, endless, [2, 4]),
    ],
)
def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path, options, data, killed_at, caplog):
    def train(*checkpoints):
        model = compiled(**options())
        callbacks = [
            *checkpoints,
            keras.callbacks.EarlyStopping("val_loss", patience=9, restore_best_weights=True),
            # Both change the learning rate: one at the end of an epoch, one at its beginning, from what it was.
            keras.callbacks.ReduceLROnPlateau("loss", patience=0, min_delta=0.5, mode="min"),
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.9 * rate),
        ]
        history = model.fit(
            data(),
            validation_data=examples(),
            epochs=3,
            steps_per_epoch=STEPS if data is endless else None,
            callbacks=callbacks,
            verbose=0,
        )
        return history, model

    undisturbed = train()
    for step in killed_at:
        with pytest.raises(KilledError):
            train(Checkpoints(tmp_path, every_steps=2), At(step, kill))
    # Only what was written at the end is left of the first of these.
    assert_same(train(Checkpoints(tmp_path, every_steps=2)), undisturbed)
    assert "is done: it has had 3 epochs" not in caplog.text
    assert_same(train(Checkpoints(tmp_path, every_steps=2)), undisturbed)
    assert "is done: it has had 3 epochs" in caplog.text
    assert len(CheckpointFiles(tmp_path, 3).numbers()) == 3


def fit(folder, *callbacks, epochs=2, model=None, data=dataset, **options):
    """(history, model) of a training without validation, which is saved every two steps."""
    model = model or compiled()
    arguments = {key: options.pop(key) for key in ("steps_per_epoch", "validation_data") if key in options}
    checkpoints = [] if folder is None else [Checkpoints(folder, every_steps=2, **options)]
    history = model.fit(data(), epochs=epochs, callbacks=[*checkpoints, *callbacks], verbose=0, **arguments)
    return history, model


@pytest.fixture(scope="module")
def undisturbed():
    """(history, model) of `fit`'s training, as it runs through."""
    return fit(None)


@pytest.mark.slow
def test_data_that_start_at_the_position(tmp_path):
    steps = {"steps_per_epoch": STEPS, "data": endless}
    undisturbed = fit(None, **steps)
    with pytest.raises(KilledError):
        fit(tmp_path, At(9, kill), **steps)
    checkpoints = Checkpoints(tmp_path, every_steps=2, skip_data=False)
    assert checkpoints.position == Position(epoch=1, step=2, global_step=8)
    model = compiled()
    data = endless(checkpoints.position.global_step)
    history = model.fit(data, epochs=2, steps_per_epoch=STEPS, callbacks=[checkpoints], verbose=0)
    assert_same((history, model), undisturbed)
    assert checkpoints.position == Position(epoch=2, step=0, global_step=12)


@pytest.mark.slow
def test_data_that_end_within_an_execution(tmp_path):
    def five():
        return dataset().take(5)

    def model():
        return compiled("adam", steps_per_execution=2)

    undisturbed = fit(None, model=model(), data=five)
    # Of the second epoch's three executions the last one, of one step, is saved; then the epoch ends.
    with pytest.raises(Preempted) as stop:
        fit(tmp_path, At(5, terminate), model=model(), data=five)
    assert stop.value.position == Position(epoch=1, step=6, global_step=12)
    assert_same(fit(tmp_path, model=model(), data=five), undisturbed)


@pytest.mark.slow
def test_a_training_that_was_over_goes_on_with_more_epochs(tmp_path):
    """From the weights, and not from their averages, which Keras puts in their place at the end."""
    undisturbed = fit(None, epochs=3, model=compiled(**averaged_rmsprop()))
    fit(tmp_path, epochs=1, model=compiled(**averaged_rmsprop()))
    assert_same(fit(tmp_path, epochs=3, model=compiled(**averaged_rmsprop())), undisturbed)


@pytest.mark.parametrize("repeats", [pytest.param(False, marks=pytest.mark.slow), True])
def test_whether_the_data_begin_anew_with_an_epoch_is_seen_after_the_first(tmp_path, repeats):
    """`steps_per_epoch` of an endless dataset, or of one that has as many."""
    options = {"data": endless if repeats else dataset, "steps_per_epoch": STEPS}
    undisturbed = fit(None, epochs=3, **options)
    fit(tmp_path, epochs=2, **options)
    assert_same(fit(tmp_path, epochs=3, **options), undisturbed)


def test_sigterm_saves_and_stops(tmp_path, undisturbed):
    before = signal.getsignal(signal.SIGTERM)
    checkpoints = Checkpoints(tmp_path, every_steps=1000)
    model = compiled()
    with pytest.raises(Preempted) as stop:
        model.fit(dataset(), epochs=2, callbacks=[checkpoints, At(8, terminate)], verbose=0)
    assert stop.value.position == Position(epoch=1, step=3, global_step=9)
    assert stop.value.saved
    assert checkpoints.position == stop.value.position
    assert signal.getsignal(signal.SIGTERM) is before
    assert type(model.train_function).__name__ == "function"
    # A second one, while steps are replayed: what is saved stays what it is.
    with pytest.raises(Preempted) as stop:
        fit(tmp_path, At(1, terminate))
    assert stop.value.position == Position(epoch=1, step=3, global_step=9)
    assert Checkpoints(tmp_path, every_steps=1).position == stop.value.position
    assert_same(fit(tmp_path), undisturbed)


@pytest.mark.slow
def test_sigterm_in_validation(tmp_path):
    """Totals of the training steps are kept apart from those of the validation, which uses the same variables."""
    options = {"validation_data": dataset(), "epochs": 2}
    undisturbed = fit(None, **options)
    with pytest.raises(Preempted) as stop:
        fit(tmp_path, At(8, terminate, during="test"), **options)
    assert stop.value.position == Position(epoch=1, step=6, global_step=12)
    assert stop.value.saved
    assert_same(fit(tmp_path, **options), undisturbed)


def test_sigterm_between_two_epochs(tmp_path, undisturbed):

    class AtEpochEnd(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            terminate()

    with pytest.raises(Preempted) as stop:
        fit(tmp_path, AtEpochEnd())
    assert stop.value.position == Position(epoch=1, step=0, global_step=6)
    assert_same(fit(tmp_path), undisturbed)


def test_an_error_in_fit_leaves_the_process_as_it_was(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    model = compiled()
    with pytest.raises(KilledError):
        fit(tmp_path, At(8, kill), model=model)
    assert signal.getsignal(signal.SIGTERM) is before
    assert type(model.train_function).__name__ == "function"
    with pytest.raises(KilledError):
        fit(tmp_path, At(3, kill), model=model)  # in epoch 1, to which it jumped
    history = model.fit(dataset(), epochs=1, verbose=0)
    assert history.epoch == [0]


class AtEpochBegin(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        kill()


KEPT = {
    "in the steps": lambda: At(1, kill),  # while it steps through the two that were done
    "before a step": lambda: At(0, kill),
    "before an epoch": AtEpochBegin,
}


def each_once_fast():
    """Every way to go on at every place; the fast tests have each place, and each way, once or twice."""
    fast = dict(zip(("goes on", "trains without", "is compiled anew", "is another"), [*KEPT, *KEPT], strict=False))
    for then, place in fast.items():
        for where in KEPT:
            yield pytest.param(where, then, marks=[pytest.mark.slow] * (where != place))


def test_an_error_in_the_first_step_is_the_only_one(tmp_path):
    """On JAX Keras has taken the values out of the variables by then, and averages them at the end of `fit`."""
    model = compiled(**averaged_rmsprop())
    spoiled = dataset().map(lambda x, y: (tf.debugging.check_numerics(x / 0.0, "spoiled"), y))
    with pytest.raises(tf.errors.InvalidArgumentError, match="spoiled"):
        model.fit(spoiled, callbacks=[Checkpoints(tmp_path, every_steps=1)], verbose=0)
    assert all(np.isfinite(value).all() for value in values(model))


@pytest.mark.parametrize(("where", "then"), list(each_once_fast()))
def test_an_error_whose_traceback_is_kept(tmp_path, undisturbed, where, then):
    """As notebooks and debuggers do: the frame of `fit` stays, and its callbacks; the process is as before."""
    signals = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: signals.append(number))
    try:
        model = compiled()
        with pytest.raises(KilledError):
            fit(tmp_path, At(9, kill), model=model)
        with pytest.raises(KilledError) as kept:
            fit(tmp_path, KEPT[where](), model=model)
        assert any(frame.name == "fit" for frame in kept.traceback)
        assert signal.getsignal(signal.SIGTERM) is not former
        assert signal.getsignal(signal.SIGTERM).__name__ == "<lambda>", "not the handler of Checkpoints"
        assert (model.training_session, model.interruption, model._initial_epoch) == (None, None, None)
        assert type(model.train_function).__name__ == "function"
        if then == "goes on":
            assert_same(fit(tmp_path, model=model), undisturbed)
        else:
            if then == "is compiled anew":
                model.compile("sgd", "sparse_categorical_crossentropy")
            model = compiled() if then == "is another" else model
            assert model.fit(dataset(), epochs=1, callbacks=[At(2, terminate)], verbose=0).epoch == [0]
            assert signals == [signal.SIGTERM]
        terminate()
        assert signals[-1] == signal.SIGTERM
        assert len(signals) == (1 if then == "goes on" else 2)
    finally:
        signal.signal(signal.SIGTERM, former)


def test_an_interrupt_just_before_a_step(tmp_path):
    """Ctrl-C when the step of a resumed `fit` stands in for the model's own: the next `fit` computes all its steps."""

    kept = []

    class Interrupted(Checkpoints):
        def on_train_batch_begin(self, batch, logs=None):
            kept.append(sys._getframe())  # and with it that of `fit`, as a debugger does
            super().on_train_batch_begin(batch, logs)
            raise KilledError

    model = compiled()
    with pytest.raises(KilledError):
        fit(tmp_path, At(9, kill), model=model)
    with pytest.raises(KilledError):
        model.fit(dataset(), epochs=3, verbose=0, callbacks=[Interrupted(tmp_path, every_steps=2)])
    assert type(model.train_function).__name__ == "function"
    before = int(model.optimizer.iterations)
    assert model.fit(dataset(), epochs=1, verbose=0).epoch == [0]
    assert int(model.optimizer.iterations) == before + STEPS
    assert type(model.train_function).__name__ == "function"


class TrainsAtSteps(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        inputs, labels = examples()
        self.model.train_on_batch(inputs[:BATCH], labels[:BATCH])


class FitsAtEpochEnds(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.fit(dataset().take(2), epochs=1, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("trains", [TrainsAtSteps, FitsAtEpochEnds])
def test_a_callback_that_trains_too(tmp_path, trains):
    """Its steps are none of `fit`'s: neither counted, nor replayed, nor taken for the end."""
    undisturbed = fit(None, trains())
    assert_same(fit(tmp_path / "through", trains()), undisturbed)
    with pytest.raises(KilledError):
        fit(tmp_path / "killed", trains(), At(9, kill))
    assert_same(fit(tmp_path / "killed", trains()), undisturbed)


@pytest.mark.slow
def test_a_callback_that_failed_with_another_model(tmp_path):
    checkpoints, failed, model = Checkpoints(tmp_path, every_steps=2), compiled(), compiled()
    with pytest.raises(KilledError) as kept:
        failed.fit(dataset(), epochs=2, callbacks=[checkpoints, At(9, kill)], verbose=0)
    with pytest.raises(KilledError):
        failed.fit(dataset(), epochs=2, callbacks=[checkpoints, AtEpochBegin()], verbose=0)
    assert model.fit(dataset(), epochs=2, callbacks=[checkpoints], verbose=0).epoch == [0, 1]
    assert failed.fit(dataset(), epochs=1, verbose=0).epoch == [0]
    assert kept.traceback


@pytest.mark.slow
def test_a_step_that_is_made_anew_meanwhile(tmp_path, undisturbed):
    """As a change of rematerialization does."""

    class Anew(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.make_train_function(force=True)

        def on_train_batch_end(self, batch, logs=None):
            if batch == 0:
                self.model.make_train_function(force=True)

    with pytest.raises(KilledError):
        fit(tmp_path, Anew(), At(9, kill))
    assert_same(fit(tmp_path, Anew()), undisturbed)


@pytest.mark.slow
def test_the_end_by_a_callback_is_an_end(tmp_path, caplog):
    """With the weights that it has chosen."""

    def early():
        return keras.callbacks.EarlyStopping("loss", min_delta=9, patience=1, restore_best_weights=True)

    undisturbed = fit(None, early(), epochs=5)
    assert undisturbed[0].epoch == [0, 1]
    assert_same(fit(tmp_path, early(), epochs=5), undisturbed)
    stopped = early()
    assert_same(fit(tmp_path, stopped, epochs=9), undisturbed)
    assert "is done: a callback ended it" in caplog.text
    assert (stopped.stopped_epoch, stopped.best_epoch) == (1, 0)


@pytest.mark.slow
def test_callbacks_remember(tmp_path):
    """Whatever they made of the steps that were only stepped through."""
    undisturbed, resumed = Counter(), Counter()
    fit(None, undisturbed)
    other = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "loss", save_best_only=True)
    with pytest.raises(KilledError):
        fit(tmp_path / "checkpoints", Counter(), other, At(9, kill))
    assert other.best is not None
    again = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", "loss", save_best_only=True)
    # Before the others in the list, too, it has the last word.
    fit(tmp_path / "checkpoints", resumed, again)
    assert resumed.steps == undisturbed.steps == 2 * STEPS
    np.testing.assert_array_equal(resumed.losses, undisturbed.losses)
    assert again.best == min(resumed.losses)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's operations")
def test_several_optimizers_and_a_step_of_ones_own(tmp_path):
    class Adversaries(DistributedTraining, keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = keras.layers.Dense(4), keras.layers.Dense(1)
            self.first_optimizer, self.second_optimizer = keras.optimizers.Adam(0.1), keras.optimizers.RMSprop(0.1)
            self.mean = keras.metrics.Mean("mean")

        def build(self, shape):
            self.first.build(shape)
            self.second.build((None, 4))
            self.first_optimizer.build(self.first.trainable_variables)
            self.second_optimizer.build(self.second.trainable_variables)

        def call(self, x):
            return self.second(self.first(x))

        def train_step(self, data):
            with tf.GradientTape(persistent=True) as tape:
                y = tf.reduce_mean((self(data[0]) - 1) ** 2)
            for layer, optimizer in ((self.first, self.first_optimizer), (self.second, self.second_optimizer)):
                optimizer.apply(tape.gradient(y, layer.trainable_variables), layer.trainable_variables)
            self.mean.update_state(y)
            return {"mean": self.mean.result(), "y": y}

    def adversaries():
        keras.utils.set_random_seed(1)
        model = Adversaries()
        model.build((None, 6))
        model.compile()
        return model

    undisturbed = fit(None, model=adversaries())
    with pytest.raises(KilledError):
        fit(tmp_path, At(9, kill), model=adversaries())
    resumed = fit(tmp_path, model=adversaries())
    assert_same(resumed, undisturbed)
    for name in ("first_optimizer", "second_optimizer"):
        for a, b in zip(getattr(resumed[1], name).variables, getattr(undisturbed[1], name).variables, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_states_of_random_layers_are_saved_wherever_they_are():
    class Drawing(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.in_list = [keras.random.SeedGenerator(1), keras.random.SeedGenerator(2)]
            self.in_dictionary = {"a": keras.random.SeedGenerator(3)}

        def call(self, x):
            return x

    inner = keras.Sequential([keras.Input((3,)), Drawing(), keras.layers.Dropout(0.1)])
    model = keras.Sequential([keras.Input((3,)), keras.layers.GaussianNoise(0.1), inner])
    model.compile("sgd", "mse")
    seeds = [np.asarray(value)[0] for value in model_state.read(model).values() if value.shape == (2,)]
    assert len(seeds) == 5
    assert {1, 2, 3} <= set(seeds)


def test_what_was_read_stays_what_it_was():
    model = compiled("adam")
    state = model_state.read(model)
    before = {name: np.array(value) for name, value in state.items()}
    weights = model.get_weights()
    model.fit(dataset(), verbose=0)
    assert not np.array_equal(model.get_weights()[0], weights[0])
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_while(tmp_path, monkeypatch, caplog, undisturbed):
    write = CheckpointFiles.write
    errors = [None, OSError(28, "No space left on device"), tf.errors.ResourceExhaustedError(None, None, "disk quota")]

    def failing(self, facts, tensors):
        error = errors.pop(0) if errors else None
        if error is not None:
            raise error
        return write(self, facts, tensors)

    monkeypatch.setattr(CheckpointFiles, "write", failing)
    assert_same(fit(tmp_path), undisturbed)
    assert f"no checkpoint was written to {tmp_path}: No space left on device" in caplog.text
    assert "disk quota. Training continues, and will try again" in caplog.text
    # Seven times it was tried: six times two steps, and the end.
    assert CheckpointFiles(tmp_path, 3).numbers() == [3, 4, 5]


def test_what_cannot_be_saved_at_sigterm_is_not_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointFiles, "write", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(Preempted) as stop:
        fit(tmp_path, At(3, terminate))
    assert not stop.value.saved


def test_a_damaged_newest_falls_back(tmp_path, caplog, undisturbed):
    with pytest.raises(KilledError):
        fit(tmp_path, At(9, kill))
    data = tmp_path / "checkpoint-4.data-00000-of-00001"
    damaged = bytearray(data.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    data.write_bytes(damaged)
    assert_same(fit(tmp_path), undisturbed)
    assert f"{data} cannot be read: " in caplog.text
    assert "Checksum does not match" in caplog.text


def test_minutes_by_the_clock(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            now[0] += 20  # seconds

    class Positions(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            found = CheckpointFiles(tmp_path, 9).newest()
            positions.append(found and found.facts["progress"]["position"]["global_step"])

    positions = []
    compiled().fit(dataset(), verbose=0, callbacks=[Clock(), Checkpoints(tmp_path, every_minutes=0.5), Positions()])
    assert positions == [None, None, 2, 2, 4, 4]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """Checkpoints of a training that was killed in its second epoch."""
    folder = tmp_path_factory.mktemp("started")
    with pytest.raises(KilledError):
        fit(folder, At(9, kill), fingerprint="recipe 1")
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"was written by a training with fingerprint 'recipe 1', but this one has '': name another folder"),
        (
            {"model": {"units": 9}},
            r"the checkpoint has a variable '.*/kernel' \(float32, 6 x 8\) where 'model' has '.*' \(float32, 6 x 9\)",
        ),
        (
            {"model": {"optimizer": "adam"}},
            "the checkpoint has 2 variables of 'optimizer', but this training 14: another model or",
        ),
        (
            {"model": {"metrics": ["sparse_categorical_crossentropy"]}},
            "'accuracy/total' .* where 'metrics' has 'sparse_categorical_crossentropy/total'",
        ),
        (
            {"model": {"metrics": []}},
            "the checkpoint has 4 variables of 'metrics', but this training 2: another",
        ),
        (
            {"data": lambda: dataset().take(5)},
            "a training with 6 steps an epoch, but this one has 5: use the same data",
        ),
        (
            {"data": lambda: dataset().take(1).filter(lambda x, y: True)},
            r"the dataset ended after 1 batch, before the checkpoint's position",
        ),
        (
            {"model": {"steps_per_execution": 3}},
            "is at step 2 of an epoch, where steps_per_execution=3 does not stop: compile the model with 1",
        ),
        ({"callbacks": "backup"}, r"takes only one of Checkpoints and keras.callbacks.BackupAndRestore: leave one out"),
        ({"callbacks": "second"}, r"takes only one of Checkpoints and keras.callbacks.BackupAndRestore: leave one out"),
    ],
)
def test_what_does_not_fit_is_refused(started, tmp_path, options, message):
    before = {path.name for path in started.iterdir()}
    rivals = {
        "backup": lambda: keras.callbacks.BackupAndRestore(tmp_path / "backup"),
        "second": lambda: Checkpoints(tmp_path / "second", every_steps=2),
    }
    callbacks = [rivals[options["callbacks"]]()] if "callbacks" in options else []
    fingerprint = "recipe 1" if options else ""
    with pytest.raises(ValueError, match=message):
        fit(
            started,
            *callbacks,
            model=compiled(**options.get("model", {})),
            data=options.get("data", dataset),
            fingerprint=fingerprint,
        )
    assert {path.name for path in started.iterdir()} == before


def test_position_of_another_recipe(started):
    with pytest.raises(ValueError, match="fingerprint 'recipe 1', but this one has 'recipe 2'"):
        _ = Checkpoints(started, every_steps=1, fingerprint="recipe 2").position


@pytest.mark.slow
def test_numbers_in_names_do_not_matter(tmp_path, undisturbed):
    """A notebook makes its model anew, and Keras counts its layers on."""
    with pytest.raises(KilledError):
        fit(tmp_path, At(9, kill))
    keras.layers.Dense(3)
    assert_same(fit(tmp_path), undisturbed)


def test_a_finite_dataset_that_fit_would_go_on_with(tmp_path):
    """Keras would start it anew after two epochs, but does not know how much of it was read by the process before."""
    options = {"steps_per_epoch": 3, "epochs": 4}
    with pytest.raises(KilledError):
        fit(tmp_path, At(4, kill), **options)
    with pytest.raises(ValueError, match=r"the dataset ended after 6 batches, between two epochs: .* Call .repeat\(\)"):
        fit(tmp_path, **options)


def test_an_unbuilt_model(tmp_path):
    class Net(DistributedTraining, keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = Net()
    model.compile("sgd", "sparse_categorical_crossentropy")
    if keras.backend.backend() == "jax":  # whose `fit` builds it
        fit(tmp_path, model=model)
        return
    with pytest.raises(ValueError, match="the model is not built: give it a keras.Input"):
        fit(tmp_path, model=model)


def plain(**options):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", **options)
    return model


def test_models_of_other_classes_are_refused(tmp_path):
    refused = r"fit\(\) of a PolyNet, of a DistributedModel .* this is a Sequential. DistributedModel\(model.inputs"
    with pytest.raises(ValueError, match=refused):
        fit(tmp_path / "plain", model=plain())
    assert not (tmp_path / "plain").exists()
    with pytest.raises(ValueError, match="this is a NoneType"):
        Checkpoints(tmp_path, every_steps=1).on_train_begin()
    model = plain()
    model = DistributedModel(model.inputs, model.outputs)  # as the message says
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert fit(tmp_path / "ours", model=model)[0].epoch == [0, 1]


def test_two_in_one_fit_are_refused_before_anything_is_done(tmp_path):
    """Once two of them waited for each other for ever."""
    model = compiled()
    rivals = [Checkpoints(tmp_path / name, every_steps=1) for name in "ab"]
    with pytest.raises(ValueError, match=r"fit\(\) takes only one of Checkpoints"):
        model.fit(dataset(), callbacks=rivals, verbose=0)
    assert not list(tmp_path.iterdir())
    assert model.training_session is None
    assert model.fit(dataset(), callbacks=[rivals[0]], verbose=0).epoch == [0]


@pytest.mark.slow
def test_one_of_a_fit_that_is_under_way_is_refused(tmp_path):
    checkpoints, other = Checkpoints(tmp_path, every_steps=2), compiled()

    class FitsAnother(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with pytest.raises(ValueError, match=r"is in use by a running fit\(\): make another one"):
                other.fit(dataset(), callbacks=[checkpoints], verbose=0)

    history = compiled().fit(dataset(), epochs=2, callbacks=[FitsAnother(), checkpoints], verbose=0)
    assert history.epoch == [0, 1]
    assert checkpoints.position == Position(2, 0, 12)


@pytest.mark.parametrize("verbose", [{}, pytest.param({"verbose": 1}, marks=pytest.mark.slow), {"verbose": 2}])
def test_with_keras_progress_bar(tmp_path, capsys, verbose):
    history = compiled().fit(dataset(), epochs=2, callbacks=[Checkpoints(tmp_path, every_steps=2)], **verbose)
    assert history.epoch == [0, 1]
    assert "Epoch 2/2" in (shown := capsys.readouterr().out)
    assert f"{STEPS}/{STEPS}" in shown


@pytest.mark.slow
def test_a_callback_that_evaluates_when_it_gets_its_model(tmp_path, undisturbed):
    class Evaluates(keras.callbacks.Callback):
        def set_model(self, model):
            super().set_model(model)
            model.evaluate(dataset().take(1), verbose=0)

    with pytest.raises(KilledError):
        fit(tmp_path, Evaluates(), At(9, kill))
    assert_same(fit(tmp_path, Evaluates()), undisturbed)


@pytest.mark.parametrize("container", [False, True])
def test_the_callbacks_of_fit_keep_their_order_but_those_that_ask_for_the_session_are_last(container):
    seen, model = [], compiled()

    class Seen(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(type(self).__name__)

    class Other(Seen):
        pass

    class Asks(Seen):
        def set_session(self, session):
            self.session = session

        def on_train_begin(self, logs=None):
            assert [type(one) for one in self.session.callbacks] == [Seen, Other, keras.callbacks.History, Asks]
            assert self.session.model is model
            assert self.session.arguments["epochs"] == 2
            assert self.session.epoch_iterator.num_batches == STEPS
            assert self.params["steps"] == STEPS

    given = [Seen(), Asks(), Other()]
    if container:
        given = keras.callbacks.CallbackList(given, model=model, add_history=True)
    history = model.fit(dataset(), epochs=2, callbacks=given, verbose=0)
    assert seen == ["Seen", "Other", "Asks"] * 2
    assert history.epoch == [0, 1]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder='.*file/checkpoints' cannot be "):
        fit(tmp_path / "file" / "checkpoints")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Checkpoints needs every_steps, every_minutes or both: it got neither"),
        ({"every_steps": 0}, "every_steps=0 must be an integer of at least 1"),
        ({"every_steps": 1.5}, "every_steps=1.5 must be an integer of at least 1"),
        ({"every_steps": True}, "every_steps=True must be an integer"),
        ({"every_minutes": 0}, "every_minutes=0 must be a finite number > 0"),
        ({"every_minutes": float("nan")}, "every_minutes=nan must be a finite number > 0"),
        ({"every_minutes": "often"}, "every_minutes='often' must be a finite number > 0"),
        ({"every_steps": 1, "keep": 0}, "keep=0 must be an integer of at least 1"),
        ({"every_steps": 1, "keep": None}, "keep=None must be an integer of at least 1"),
        ({"every_steps": 1, "fingerprint": 7}, "fingerprint=7 must be a string"),
        ({"every_steps": 1, "folder": ""}, "folder='' must be the path of a folder"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Checkpoints(**{"folder": "checkpoints", **arguments})


def test_other_backends(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="Checkpoints need Keras's backend tensorflow or jax, but this is 'torch'"):
        Checkpoints("checkpoints", every_steps=1)
