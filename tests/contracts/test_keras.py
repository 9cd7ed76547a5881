"""What this package uses of Keras that is private there, each name with Keras's own objects (`names.py`)."""

import itertools
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.basics.keras_internals import ADAPTERS
from polynet_keras.checkpoints.callback_state import ATTRIBUTES
from polynet_keras.data.distortion import ExampleSeeds, take_seeds_from
from tests.contracts.names import contract

X = np.arange(24, dtype="float32").reshape(6, 4) / 24
Y = np.ones((6, 2), "float32")
METRICS = ["mae"]


def compiled(cls=keras.Model, loss="mse", metrics=METRICS, **arguments):
    inputs = keras.Input((4,), name="image")
    model = cls(inputs, keras.layers.Dense(2, name="dense")(inputs))
    model.compile(keras.optimizers.SGD(0.1, **arguments), loss, metrics=metrics, run_eagerly=True)
    return model


def trained(optimizer, *, gradient):
    """One update of a variable that is 1; the variable."""
    variable = keras.Variable(np.ones(2), name="kernel")
    optimizer.build([variable])
    optimizer.apply([tf.constant(gradient)], [variable])
    return variable


class OnTrainBegin(keras.callbacks.Callback):
    def __init__(self, does):
        super().__init__()
        self._does = does

    def on_train_begin(self, logs=None):
        self._does(self)


# Models.


@contract("Model._initial_epoch")
def test_fit_begins_at_the_initial_epoch_that_a_callback_sets():
    model, epochs = compiled(), []
    assert model._initial_epoch is None

    def begin_later(callback):
        callback.model._initial_epoch = 2

    notes = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    model.fit(X, Y, epochs=4, verbose=0, callbacks=[OnTrainBegin(begin_later), notes])
    assert epochs == [2, 3]


@contract("Model._distribute_strategy")
def test_a_model_knows_the_strategy_that_it_was_made_under(strategy):
    assert compiled()._distribute_strategy is None
    with strategy.scope():
        assert compiled()._distribute_strategy is strategy


@contract("Model._maybe_symbolic_build")
def test_fit_and_train_on_batch_build_by_an_overridden_method():
    calls = []

    class Model(keras.Model):
        def _maybe_symbolic_build(self, iterator=None, data_batch=None):
            calls.append((iterator, data_batch))

    model = compiled(Model)
    model.fit(X, Y, verbose=0)
    model.evaluate(X, Y, verbose=0)
    model.train_on_batch(X, Y)
    model.test_on_batch(X, Y)
    (fitted, none), (evaluated, also_none), *batches = calls
    assert hasattr(fitted, "_get_iterator")
    assert hasattr(evaluated, "_get_iterator")
    assert none is also_none is None
    assert [iterator for iterator, _ in batches] == [None, None]
    assert all(x.shape == (6, 4) and y.shape == (6, 2) for _, (x, y, *_) in batches)


@contract("Model._symbolic_build")
def test_a_model_is_built_from_shapes():
    model = compiled(loss={"dense": "mse"})
    assert not model.optimizer.built
    before = model.get_weights()
    model._symbolic_build(data_batch=(keras.KerasTensor((None, 4)), keras.KerasTensor((None, 2))))
    assert model.optimizer.built
    assert model._compile_loss.built
    # Sum and count of the loss and of the metric.
    assert len(model.metrics_variables) == 4
    for value, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, was)


@contract("Model._get_metrics_result_or_logs")
def test_an_evaluation_takes_its_results_from_one_method():
    class Model(keras.Model):
        def _get_metrics_result_or_logs(self, logs):
            return {**super()._get_metrics_result_or_logs(logs), "loss": 7.0}

    assert compiled(Model).evaluate(X, Y, return_dict=True, verbose=0)["loss"] == 7.0


def source_of_jax_trainer():
    """Keras's file, read and not imported: on another backend it would not be what Keras uses."""
    return (Path(keras.__file__).parent / "src" / "backend" / "jax" / "trainer.py").read_text()


@contract("JAXTrainer.jax_state_sync")
def test_on_jax_one_method_gives_the_variables_their_values():
    source = source_of_jax_trainer()
    assert "def jax_state_sync(self):" in source
    assert source.count("self.jax_state_sync()") > 3


@contract("JAXTrainer._jax_state")
def test_on_jax_the_values_of_an_epoch_are_in_one_attribute():
    assert "            self._jax_state = {" in source_of_jax_trainer()


@contract("JAXTrainer._jax_state_synced")
def test_on_jax_an_attribute_says_that_the_variables_have_their_values():
    assert "or self._jax_state_synced:\n            return" in source_of_jax_trainer()


@contract("adapter.get_jax_iterator")
def test_each_kind_of_data_has_an_iterator_for_jax():
    found = []

    class Model(keras.Model):
        def _maybe_symbolic_build(self, iterator=None, data_batch=None):
            found.append(iterator.data_adapter)
            super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)

    compiled(Model).fit(tf.data.Dataset.from_tensor_slices((X, Y)).batch(3), verbose=0)
    batches = list(found[0].get_jax_iterator())
    assert [type(array) for array in batches[0]] == [np.ndarray, np.ndarray]
    assert [len(labels) for _, labels in batches] == [3, 3]


@contract("Model._compute_loss")
def test_the_loss_of_a_batch_is_computed():
    model = compiled()
    y_pred, weights = np.zeros((6, 2), "float32"), np.array([1, 0, 0, 0, 0, 2], "float32")
    loss = model._compute_loss(x=X, y=2 * Y, y_pred=y_pred, sample_weight=weights, training=True)
    assert float(loss) == pytest.approx(4.0 * 3 / 6)


@contract("Model._loss_tracker")
def test_the_loss_that_logs_show_is_a_mean_that_takes_weights():
    model = compiled(metrics=None)
    model._loss_tracker.update_state(3.0, sample_weight=1.0)
    model._loss_tracker.update_state(6.0, sample_weight=2.0)
    assert float(model._loss_tracker.result()) == 5.0
    assert model._loss_tracker in model.metrics
    assert float(model.get_metrics_result()["loss"]) == 5.0


@contract("Model.get_metrics_result")
def test_metrics_are_logs_by_name():
    model = compiled()
    model.train_on_batch(X, Y)
    assert set(model.get_metrics_result()) == {"loss", "mae"}


@contract("Model._call_has_training_arg")
def test_a_model_knows_whether_its_call_takes_training():
    class Net(keras.Model):
        def call(self, x):
            return x

    assert compiled()._call_has_training_arg is True
    assert Net()._call_has_training_arg is False


@contract("Model._flatten_layers")
def test_the_layers_of_nested_models_are_found():
    inner, image = compiled(), keras.Input((4,))
    outer = keras.Model(image, keras.layers.Dropout(0.5)(inner(image)))
    assert {layer.name for layer in inner.layers} < {layer.name for layer in outer._flatten_layers()}
    assert any(isinstance(layer, keras.layers.Dropout) for layer in outer._flatten_layers())


def two_outputs():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [keras.layers.Dense(2, name=name)(inputs) for name in ("a", "b")])
    model.compile("sgd", {"a": "mse", "b": "mae"}, run_eagerly=True)
    return model


@contract("Model._compile_loss")
def test_the_losses_of_a_model_are_one_object_since_it_was_compiled():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    assert model._compile_loss is None
    model.compile("sgd", "mse")
    assert float(model._compile_loss(Y, 3 * Y)) == 4.0


@contract("CompileLoss._flat_losses")
def test_a_loss_is_replaced_in_the_list_of_losses():
    model = compiled()
    model.train_on_batch(X, Y)
    (entry,) = losses = model._compile_loss._flat_losses

    class Tripled:
        def __call__(self, y_true, y_pred, sample_weight=None):
            return 3 * entry.loss(y_true, y_pred, sample_weight)

    assert isinstance(losses, list)
    before = float(model._compute_loss(x=X, y=Y, y_pred=3 * Y))
    losses[0] = entry._replace(loss=Tripled())
    assert before == 4.0
    assert float(model._compute_loss(x=X, y=Y, y_pred=3 * Y)) == 12.0


@contract("CompileLoss.Loss._replace")
def test_an_entry_of_the_losses_keeps_all_but_what_is_replaced():
    model = two_outputs()
    model.train_on_batch(X, [Y, Y])
    entry = model._compile_loss._flat_losses[1]
    changed = entry._replace(loss=None)
    assert changed.loss is None
    assert type(changed) is type(entry)
    assert [value for value in changed if value is not None] == [
        value for value in entry if value is not None and value is not entry.loss
    ]


@contract("CompileLoss.metrics")
def test_the_loss_of_each_output_is_a_mean_of_total_and_count():
    model = two_outputs()
    model.train_on_batch(X, [Y, Y])
    assert [metric.name for metric in model._compile_loss.metrics] == ["a_loss", "b_loss"]
    held = {id(variable) for variable in model.metrics_variables}
    for metric in model._compile_loss.metrics:
        assert {id(metric.total), id(metric.count)} <= held
        assert float(metric.result()) == pytest.approx(float(metric.total / metric.count))


@contract("Model.train_function")
def test_fit_calls_the_train_function_that_is_there_with_an_iterator():
    model, batches = compiled(), []

    def step(iterator):
        batches.append(next(iterator))
        return {"loss": 7.0}

    class Replaces(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            model.train_function = keras_step if batch == 1 else step

    model.make_train_function()
    keras_step = model.train_function
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
    before = model.get_weights()[1]
    model.fit(data, shuffle=False, verbose=0, callbacks=[Replaces()])
    assert len(batches) == 2
    np.testing.assert_array_equal(batches[1][0], X[4:])
    assert not np.array_equal(model.get_weights()[1], before)  # Keras's own did the second step

    model.train_function = step
    assert model.train_on_batch(X, Y, return_dict=True)["loss"] == 7.0
    model.make_train_function()
    assert model.train_function is step
    model.make_train_function(force=True)
    assert model.train_function is not step


@contract("Model.test_function")
def test_evaluate_calls_the_test_function_that_is_there_with_an_iterator():
    model, sizes = compiled(metrics=None), []

    def step(iterator):
        sizes.append(len(next(iterator)[0]))
        return {"loss": 7.0}

    model.test_function = step
    model.evaluate(X, Y, batch_size=4, verbose=0)
    model.test_on_batch(X, Y)
    assert sizes == [4, 2, 6]
    model.make_test_function(force=True)
    assert model.test_function is not step


@contract("Model.predict_function")
def test_predict_calls_the_predict_function_that_is_there_with_a_list_of_batches():
    model, given = compiled(), []

    def step(batches):
        given.append(len(batches))
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batches[0])
        return 2 * tf.convert_to_tensor(x)

    model.predict_function = step
    np.testing.assert_array_equal(model.predict(X, batch_size=4, verbose=0), 2 * X)
    np.testing.assert_array_equal(model.predict_on_batch(X), 2 * X)
    assert given == [1, 1, 1]
    model.make_predict_function(force=True)
    assert model.predict_function is not step


@contract("TFEpochIterator._get_iterator")
def test_the_data_of_fit_have_a_specification():
    specs = []

    class Model(keras.Model):
        def _maybe_symbolic_build(self, iterator=None, data_batch=None):
            specs.append(iterator._get_iterator().element_spec)

    compiled(Model).fit(X, Y, batch_size=2, verbose=0)
    x, y = specs[0]
    assert x.shape.as_list()[1:] == [4]
    assert y.shape.as_list()[1:] == [2]
    assert x.dtype == tf.float32


def epoch_iterator(x, **options):
    """Keras's, of a call of fit."""
    found = []

    class Model(keras.Model):
        def _maybe_symbolic_build(self, iterator=None, data_batch=None):
            found.append(iterator)

    compiled(Model).fit(x, verbose=0, **options)
    return found[0]


@contract("TFEpochIterator._current_iterator")
def test_with_steps_per_epoch_the_iterator_is_kept_until_it_ends():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
    assert epoch_iterator(data.repeat(), steps_per_epoch=1)._current_iterator is not None
    assert epoch_iterator(data)._current_iterator is not None or len(X) % 2
    assert epoch_iterator(data.take(1), steps_per_epoch=2)._current_iterator is not None


@contract("TFEpochIterator.data_adapter")
def test_the_data_of_fit_have_an_adapter():
    assert epoch_iterator(X, y=Y).data_adapter is not None


@contract("names of the adapters")
def test_the_kinds_of_adapters():
    from keras.src.trainers import data_adapters

    def batches():
        yield X, Y

    data = [(tf.data.Dataset.from_tensors((X, Y)), {}), (X, {"y": Y}), (Pairs(), {}), (batches(), {})]
    kinds = {type(epoch_iterator(x, **options).data_adapter).__name__ for x, options in data}
    assert kinds == {"TFDatasetAdapter", "ArrayDataAdapter", "PyDatasetAdapter", "GeneratorDataAdapter"} < set(ADAPTERS)
    assert {name for name in dir(data_adapters) if name.endswith("Adapter")} - {"DataAdapter"} == set(ADAPTERS)


@contract("TFDatasetAdapter._dataset")
def test_the_dataset_that_fit_was_given():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
    assert epoch_iterator(data).data_adapter._dataset is data


class Pairs(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return X, Y


@contract("PyDatasetAdapter.py_dataset")
def test_the_py_dataset_that_fit_was_given():
    data = Pairs()
    assert epoch_iterator(data, shuffle=False).data_adapter.py_dataset is data


@contract("PyDatasetAdapter.shuffle")
def test_whether_a_py_dataset_is_shuffled():
    assert [epoch_iterator(Pairs(), shuffle=s).data_adapter.shuffle for s in (True, False)] == [True, False]


@contract("ArrayDataAdapter._shuffle")
def test_whether_arrays_are_shuffled():
    assert [epoch_iterator(X, y=Y, shuffle=s).data_adapter._shuffle for s in (True, False)] == [True, False]


@contract("TorchDataLoaderAdapter._dataloader")
def test_the_data_loader_of_an_adapter():
    import inspect

    from keras.src.trainers.data_adapters import torch_data_loader_adapter as module

    assert "self._dataloader = dataloader" in inspect.getsource(module.TorchDataLoaderAdapter.__init__)


@contract("tensor._keras_logits")
def test_a_softmax_names_its_logits():
    logits = tf.constant([[0.0, 200.0]])
    probabilities = keras.activations.softmax(logits)
    assert probabilities._keras_logits is logits
    loss = keras.losses.SparseCategoricalCrossentropy()
    assert float(loss(tf.constant([0]), probabilities)) == 200.0
    copy = tf.identity(probabilities)
    assert float(loss(tf.constant([0]), copy)) < 20
    copy._keras_logits = logits
    assert float(loss(tf.constant([0]), copy)) == 200.0


@contract("Functional._standardize_inputs")
def test_the_input_of_a_functional_model_is_one_tensor_of_a_list():
    model = compiled()
    (tensor,) = model._standardize_inputs(tf.constant(X))
    np.testing.assert_array_equal(tensor, X)


def called_twice():
    """A model that applies one layer twice, and the layer."""
    inputs = keras.Input((4,))
    dense = keras.layers.Dense(4)
    dropped = keras.layers.Dropout(0.5)(dense(dense(inputs)), training=True)
    return keras.Model(inputs, keras.layers.Add()([inputs, dropped])), dense


def nodes(model):
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]


@contract("Functional._nodes_by_depth")
def test_the_applications_of_layers_are_there_from_the_input_on():
    model, _ = called_twice()
    names = [type(node.operation).__name__ for node in nodes(model)]
    assert names == ["InputLayer", "Dense", "Dense", "Dropout", "Add"]


@contract("Node.operation")
def test_an_application_knows_its_layer():
    model, dense = called_twice()
    assert [node.operation is dense for node in nodes(model)] == [False, True, True, False, False]


@contract("Node.is_input")
def test_an_input_is_told_from_an_application():
    model, _ = called_twice()
    assert [bool(node.is_input) for node in nodes(model)] == [True, False, False, False, False]


@contract("Node.arguments")
def test_an_application_knows_the_arguments_of_its_call():
    model, _ = called_twice()
    assert [node.arguments.kwargs.get("training") for node in nodes(model)][1:] == [None, None, True, None]


@contract("Node.input_tensors")
def test_the_tensors_that_a_layer_was_applied_to():
    model, _ = called_twice()
    _, first, second, dropout, add = nodes(model)
    assert first.input_tensors[0] is model.inputs[0]
    assert [id(tensor) for tensor in add.input_tensors] == [id(model.inputs[0]), id(dropout.outputs[0])]
    assert second.input_tensors[0] is first.outputs[0]


@contract("Node.output_tensors")
def test_the_shape_of_what_a_layer_gave():
    model, _ = called_twice()
    assert [node.output_tensors[0].shape for node in nodes(model)] == [(None, 4)] * 5


@contract("Node.outputs")
def test_the_last_application_gave_the_models_output():
    model, _ = called_twice()
    assert nodes(model)[-1].outputs[0] is model.outputs[0]


@contract("Sequential._functional")
def test_a_sequential_model_has_a_functional_one():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    assert [type(node.operation).__name__ for node in nodes(model._functional)] == ["InputLayer", "Dense"]
    assert tuple(model._functional.output.shape) == (None, 2)


# Layers, variables and tensors.


def normalization():
    layer = keras.layers.BatchNormalization()
    layer.build((None, 4))
    return layer


@contract("Layer._trainable_variables")
def test_the_trained_variables_of_a_layers_own():
    assert [variable.name for variable in normalization()._trainable_variables] == ["gamma", "beta"]
    assert compiled()._trainable_variables == []  # those of its layers are theirs


@contract("Layer._non_trainable_variables")
def test_the_other_variables_of_a_layers_own_without_the_states_of_random_numbers():
    names = [variable.name for variable in normalization()._non_trainable_variables]
    assert names == ["moving_mean", "moving_variance"]
    dropout = keras.layers.Dropout(0.5, seed=1)
    assert dropout.variables
    assert dropout._non_trainable_variables == []


@contract("Variable._value")
def test_what_holds_a_variables_value_may_be_replaced():
    metric = keras.metrics.Sum()
    (variable,) = metric.variables
    metric.update_state([1.0, 2.0])
    variable._value = other = tf.Variable(10.0)
    assert variable.value is other
    metric.update_state([5.0])
    assert float(metric.result()) == float(other) == 15.0
    metric.reset_state()
    assert float(other) == 0.0


@contract("tensor._keras_mask")
def test_a_mask_goes_with_a_tensor():
    embedded = keras.layers.Embedding(3, 2, mask_zero=True)(np.array([[1, 2, 0]]))
    np.testing.assert_array_equal(embedded._keras_mask, [[True, True, False]])
    x = tf.constant([[[1.0], [3.0], [100.0]]])
    x._keras_mask = tf.constant([[True, True, False]])
    assert float(keras.layers.GlobalAveragePooling1D()(x)[0, 0]) == 2.0


IMAGE = np.random.default_rng(0).uniform(0, 255, (1, 8, 8, 3)).astype("float32")
RANDOM_LAYERS = {
    "RandomColorJitter": lambda: keras.layers.RandomColorJitter(
        brightness_factor=0.4, contrast_factor=0.4, saturation_factor=0.4, data_format="channels_last"
    ),
    "RandAugment": lambda: keras.layers.RandAugment(data_format="channels_last"),
    "RandomErasing": lambda: keras.layers.RandomErasing((1.0, 1.0), (0.1, 0.3), data_format="channels_last"),
}


@contract("BaseImagePreprocessingLayer.generator")
@pytest.mark.parametrize("name", list(RANDOM_LAYERS))
def test_all_that_a_layer_draws_comes_from_its_generator(name):
    """Two layers with generators of their own seeds do the same once both draw from one seed."""
    layers, results = [RANDOM_LAYERS[name]() for _ in range(2)], []
    for layer in layers:
        assert isinstance(layer.generator, keras.random.SeedGenerator)
        seeds = ExampleSeeds(0)
        take_seeds_from(layer, seeds)
        drawn = []
        for seed in (3, 3, 4, 5):
            seeds.start(tf.constant([seed, 0], tf.int64))
            drawn.append(np.asarray(layer(IMAGE, training=True)))
        results.append(drawn)
    np.testing.assert_array_equal(results[0][0], results[0][1])
    np.testing.assert_array_equal(results[0], results[1])
    assert any(not np.array_equal(results[0][0], other) for other in results[0][2:])


@contract("BaseImagePreprocessingLayer._backend_generators")
def test_a_layer_draws_from_a_generator_by_backend_where_the_backend_is_not_keras_own():
    layer = keras.layers.MixUp(data_format="channels_last")
    seeds = ExampleSeeds(0)
    layer._backend_generators = {"jax": seeds}
    assert layer._get_seed_generator("jax") is seeds
    assert layer._get_seed_generator("tensorflow") is layer.generator


@contract("BaseImagePreprocessingLayer._get_seed_generator")
@pytest.mark.parametrize("name", list(RANDOM_LAYERS))
def test_a_layer_tells_from_which_generator_it_draws(name):
    layer = RANDOM_LAYERS[name]()
    assert layer._get_seed_generator() is layer._get_seed_generator("tensorflow") is layer.generator


@contract("BaseImagePreprocessingLayer.backend.set_backend")
def test_a_layer_computes_with_the_backend_that_is_set():
    layer = keras.layers.MixUp(data_format="channels_last")
    layer.backend.set_backend("jax")
    assert layer.backend.name == "jax"
    layer.backend.set_backend("tensorflow")
    assert layer.backend.name == "tensorflow"
    assert tf.is_tensor(layer.backend.numpy.ones((2,)))


@contract("BaseImagePreprocessingLayer.backend.reset")
def test_a_layer_goes_back_to_keras_own_backend():
    layer = keras.layers.MixUp(data_format="channels_last")
    layer.backend.set_backend("jax")
    layer.backend.reset()
    assert layer.backend.name == keras.backend.backend()


PAIR = np.stack([np.zeros((64, 64, 1)), np.full((64, 64, 1), 100.0)]).astype("float32")


def mixed(layer, order):
    """Images and labels of a pair, mixed in an order that is not Keras's; the means of the images."""
    drawn = layer.get_random_transformation(PAIR, training=True)
    assert "permutation_order" in drawn
    drawn["permutation_order"] = tf.constant(order)
    images, labels = layer.transform_images(PAIR, drawn), layer.transform_labels(tf.eye(2), drawn)
    return np.mean(images, axis=(1, 2, 3)), np.asarray(labels)


def check_order(layer):
    means, labels = mixed(layer, [0, 1])
    np.testing.assert_allclose(means, [0, 100], atol=1e-4)
    np.testing.assert_allclose(labels, np.eye(2), atol=1e-6)
    means, labels = mixed(layer, [1, 0])
    # An image's share of white is its label's. A rectangle of whole pixels may be a row and a column off.
    np.testing.assert_allclose(means, 100 * labels[:, 1], atol=100 * 2 / 64)
    assert labels[0, 1] > 0


@contract('MixUp: transformation["permutation_order"]')
def test_whom_mixup_mixes_is_ours_to_say():
    check_order(keras.layers.MixUp(1.0, data_format="channels_last", seed=3))


@contract('CutMix: transformation["permutation_order"]')
def test_whom_cutmix_mixes_is_ours_to_say():
    check_order(keras.layers.CutMix((1.0, 1.0), data_format="channels_last", seed=3))


# Callbacks.


@pytest.fixture(scope="module")
def remembered(tmp_path_factory):
    """Keras's callbacks after a training of 2 epochs with 3 steps, and what each held when an epoch ended."""
    folder = tmp_path_factory.mktemp("callbacks")
    callbacks = [
        keras.callbacks.EarlyStopping("loss", patience=5, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(folder / "best.weights.h5", "loss", save_freq=2, save_weights_only=True),
        keras.callbacks.ReduceLROnPlateau("loss", min_delta=100, patience=1, cooldown=3),
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        keras.callbacks.TensorBoard(folder, write_graph=False),
    ]
    held = []

    class Notes(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            held.append([{name: repr(value) for name, value in vars(one).items()} for one in callbacks])

    model = compiled(use_ema=True)
    history = model.fit(
        X, Y, batch_size=2, epochs=2, validation_data=(X[:4], Y[:4]), verbose=0, callbacks=[*callbacks, Notes()]
    )
    return {type(callback).__name__: callback for callback in (*callbacks, history)}, held


@contract("ModelCheckpoint._batches_seen_since_last_saving")
def test_how_many_steps_ago_a_file_was_written(remembered):
    _, held = remembered
    counts = [callback["_batches_seen_since_last_saving"] for _, callback, *_ in held]
    assert counts == ["1", "0"]  # after 3 and 6 steps, with a file every 2


@contract("ModelCheckpoint._last_batch_seen")
def test_the_last_step_that_a_checkpoint_saw(remembered):
    assert remembered[0]["ModelCheckpoint"]._last_batch_seen == 2


@contract("SwapEMAWeights._ema_weights_in_model")
def test_whether_the_averages_are_in_the_model():
    callback = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    assert callback._ema_weights_in_model is False
    seen = []
    ends = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(callback._ema_weights_in_model))
    compiled(use_ema=True).fit(X, Y, verbose=0, callbacks=[ends, callback, ends])
    assert seen == [False, True]


@contract("TensorBoard._global_train_batch")
def test_the_steps_that_tensorboard_counted(remembered):
    assert remembered[0]["TensorBoard"]._global_train_batch == 6


@contract("TensorBoard._global_test_batch")
def test_the_steps_of_validation_that_tensorboard_counted(remembered):
    assert remembered[0]["TensorBoard"]._global_test_batch == 4


@contract("state of callbacks")
def test_what_changes_from_epoch_to_epoch_is_known(remembered):
    """Each attribute is there; and there is none beside them that an epoch changes."""
    callbacks, (first, second) = remembered
    for kind, names in ATTRIBUTES:
        assert set(names) <= set(vars(callbacks[kind.__name__])), kind
    # What `on_epoch_begin` sets anew.
    known = {name for _, names in ATTRIBUTES for name in names} | {"_current_epoch"}
    changed = {
        name
        for before, after in zip(first, second, strict=True)
        for name in after
        if name not in ("model", "_model") and before.get(name) != after[name]
    }
    assert {"best", "best_epoch", "cooldown_counter", "_global_train_batch"} <= changed <= known
    json.dumps(callbacks["History"].history)


# Optimizers.


@contract("Optimizer._backend_update_step")
def test_an_update_goes_through_an_overridden_method():
    calls = []

    class RMSprop(keras.optimizers.RMSprop):
        def _backend_update_step(self, grads, trainable_variables, learning_rate):
            calls.append((grads, trainable_variables, learning_rate))
            super()._backend_update_step(grads, trainable_variables, learning_rate)

    variable = trained(RMSprop(0.5, rho=0.0, epsilon=0.0), gradient=[2.0, -2.0])
    np.testing.assert_allclose(variable, [0.5, 1.5], rtol=1e-6)
    (((gradient,), (updated,), rate),) = calls
    np.testing.assert_array_equal(gradient, [2.0, -2.0])
    assert updated is variable
    assert float(rate) == 0.5


@contract("Optimizer._all_reduce_sum_gradients")
def test_the_sum_over_replicas_may_be_replaced():
    optimizer, given = keras.optimizers.SGD(1.0), []

    def halved(gradients_and_variables):
        given.extend(gradients_and_variables)
        return [(gradient / 2, variable) for gradient, variable in given]

    optimizer._all_reduce_sum_gradients = halved
    np.testing.assert_array_equal(trained(optimizer, gradient=[2.0, 4.0]), [0.0, -1.0])
    assert len(given) == 1


@contract("Optimizer._get_variable_index")
def test_an_optimizer_knows_a_variable_by_number():
    variables = [keras.Variable(np.ones(2)) for _ in range(3)]
    optimizer = keras.optimizers.RMSprop()
    optimizer.build(variables)
    assert [optimizer._get_variable_index(variable) for variable in variables] == [0, 1, 2]
    # What `update_step` is given.
    assert [optimizer._get_variable_index(variable.value) for variable in variables] == [0, 1, 2]


@contract("Optimizer._apply_weight_decay")
def test_weights_decay_in_a_method_that_may_be_overridden():
    class SGD(keras.optimizers.SGD):
        def _apply_weight_decay(self, variables):
            pass

    np.testing.assert_allclose(trained(keras.optimizers.SGD(0.5, weight_decay=0.5), gradient=[0.0, 0.0]), [0.75, 0.75])
    np.testing.assert_array_equal(trained(SGD(0.5, weight_decay=0.5), gradient=[0.0, 0.0]), [1.0, 1.0])


@contract("Optimizer._use_weight_decay")
def test_an_optimizer_knows_which_variables_decay():
    variables = [keras.Variable(np.ones(2)) for _ in range(2)]
    optimizer = keras.optimizers.SGD(weight_decay=0.5)
    optimizer.exclude_from_weight_decay(variables[:1])
    optimizer.build(variables)
    assert [optimizer._use_weight_decay(variable.value) for variable in variables] == [False, True]


@contract("Lamb._momentums")
@contract("Lamb._velocities")
def test_lamb_keeps_its_moments_by_number():
    variables = [keras.Variable(np.ones(2)), keras.Variable(np.ones(3))]
    optimizer = keras.optimizers.Lamb(beta_1=0.5, beta_2=0.75)
    optimizer.apply([keras.ops.ones(2), 2 * keras.ops.ones(3)], variables)
    np.testing.assert_allclose(optimizer._momentums[1], np.ones(3))
    np.testing.assert_allclose(optimizer._velocities[1], np.ones(3))
    assert [moment.shape for moment in optimizer._momentums] == [(2,), (3,)]


@contract("Optimizer._trainable_variables")
def test_an_optimizer_holds_what_it_trains_in_order():
    variables = [keras.Variable(np.ones(2)) for _ in range(3)]
    optimizer = keras.optimizers.RMSprop()
    optimizer.build(variables)
    assert [id(variable) for variable in optimizer._trainable_variables] == [id(variable) for variable in variables]


@contract("Optimizer._distribution_strategy")
def test_an_optimizer_knows_the_strategy_that_it_was_made_under(strategy):
    assert keras.optimizers.RMSprop()._distribution_strategy is tf.distribute.get_strategy()
    with strategy.scope():
        assert keras.optimizers.RMSprop()._distribution_strategy is strategy


@pytest.fixture(scope="module")
def rmsprop():
    optimizer = keras.optimizers.RMSprop(0.1, rho=0.75, momentum=0.5, epsilon=0.0, centered=True)
    trained(optimizer, gradient=[2.0, -4.0])
    return optimizer


@contract("RMSprop._velocities")
def test_the_mean_squares_of_gradients(rmsprop):
    np.testing.assert_allclose(rmsprop._velocities[0], [0.25 * 4, 0.25 * 16])


@contract("RMSprop._average_gradients")
def test_the_mean_gradients(rmsprop):
    np.testing.assert_allclose(rmsprop._average_gradients[0], [0.25 * 2, 0.25 * -4])


@contract("RMSprop._momentums")
def test_the_momentums(rmsprop):
    roots = np.sqrt([1.0 - 0.25, 4.0 - 1.0])
    np.testing.assert_allclose(rmsprop._momentums[0], 0.1 * np.array([2.0, -4.0]) / roots, rtol=1e-6)


@contract('RMSprop: add_optimizer_variables(..., "velocity")')
def test_the_mean_squares_are_made_by_a_method_that_may_choose_where_they_begin():
    class Ones(keras.optimizers.RMSprop):
        def add_optimizer_variables(self, trainable_variables, name, initializer="zeros"):
            initializer = "ones" if name == "velocity" else initializer
            return super().add_optimizer_variables(trainable_variables, name, initializer)

    optimizer = Ones(momentum=0.5)
    optimizer.build([keras.Variable(np.zeros(3))])
    np.testing.assert_array_equal(optimizer._velocities[0], np.ones(3))
    np.testing.assert_array_equal(optimizer._momentums[0], np.zeros(3))


@contract("names of an optimizer's variables")
def test_an_optimizers_variables_are_named_after_the_paths_of_what_they_are_of():
    model = compiled()
    optimizer = keras.optimizers.RMSprop(momentum=0.5, centered=True, gradient_accumulation_steps=2)
    optimizer.build(model.trainable_variables)
    names = {variable.name for variable in optimizer.variables}
    paths = [variable.path.replace("/", "_") for variable in model.trainable_variables]
    slots = ("velocity", "momentum", "average_gradient", "gradient_accumulator")
    assert {f"{path}_{slot}" for path, slot in itertools.product(paths, slots)} <= names
