"""The model class: the same numbers as a plain `keras.Model`, one trace, rematerialization, saving."""

import json

import keras
import numpy as np
import pytest

from polynet_keras import InceptionResNet, PolyNet
from polynet_keras.engine.network import Network
from polynet_keras.layers import StochasticResidualScaling
from tests.reference import few_layers, gradients, randomize

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow compiles its own way")
EAGERLY = keras.backend.backend() == "tensorflow"
"""How Keras's model runs where it is only what ours is compared to: on TensorFlow, tracing it takes longest."""
SIDE = 107  # the last stage has 2 × 2: normalizing over batches of single values is chaos
RATE = 1e-4
COUNT, BATCH = 11, 6
"""Two steps: with random parameters, Keras's own graph and eager modes differ by 1e-3 after four (7e-2 if every weight
is rounded differently), so that a longer run could not tell a fault from rounding."""
STRUCTURE = "1 x [2-way, ir] | 1 x [poly-3, mpoly-2] | 1 x [3-way]"
SMALLEST = "1 x [ir] | 1 x [ir] | 1 x [ir]"


def network(**arguments):
    settings = {"structure": STRUCTURE, "width": 0.1, "input_shape": (SIDE, SIDE, 3), "classes": 4, "weights": None}
    return PolyNet(**{**settings, **arguments})


def pair(seed=0, make=network, **arguments):
    """The same network as our class and as Keras's, with the same random weights."""
    ours = make(**arguments)
    randomize(ours, seed)
    theirs = keras.Model(ours.inputs, ours.outputs)
    theirs = keras.models.clone_model(theirs)
    theirs.set_weights(ours.get_weights())
    assert isinstance(ours, Network)
    assert not isinstance(theirs, Network)
    return ours, theirs


def compiled(*models, rate=RATE, **arguments):
    for model in models:
        settings = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **arguments}
        model.compile(keras.optimizers.SGD(rate), **settings)
    return models


def small_pair(seed=0):
    """Of few layers, compiled with a rate that moves them."""
    ours, theirs = pair(seed, few_layers)
    return *compiled(ours, rate=0.1), *compiled(theirs, rate=0.1, run_eagerly=EAGERLY)


def data(count=COUNT, seed=0, classes=4, side=SIDE):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, side, side, 3)).astype("float32"), rng.integers(0, classes, count)


def small_data(count=COUNT, seed=0):
    return data(count, seed, side=12)


def assert_same(ours, theirs, tolerance=5e-3):
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1e-2, np.abs(b).max()))


def assert_same_logs(ours, theirs, tolerance=1e-3):
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values, rtol=tolerance, err_msg=name)


class Traces(keras.losses.SparseCategoricalCrossentropy):
    """Counts how often Python runs it, which it does when TensorFlow traces."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def call(self, y_true, y_pred):
        self.count += 1
        return super().call(y_true, y_pred)


FIT = {
    "arrays": lambda x, y: {"x": x, "y": y, "batch_size": BATCH},
    "sample weights": lambda x, y: {"x": x, "y": y, "batch_size": BATCH, "sample_weight": np.linspace(0, 1, len(y))},
    "class weights": lambda x, y: {
        "x": x,
        "y": y,
        "batch_size": BATCH,
        "class_weight": {0: 1.0, 1: 2.0, 2: 0.5, 3: 0.0},
    },
    "validation": lambda x, y: {"x": x, "y": y, "batch_size": BATCH, "validation_data": (x[:7], y[:7])},
    "validation split": lambda x, y: {"x": x, "y": y, "batch_size": BATCH, "validation_split": 0.4},
}


FIT_FAST = ("arrays", "sample weights", "validation")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in FIT_FAST)) for kind in FIT]
)
def test_fit_equals_keras(kind):
    ours, theirs = small_pair()
    before = ours.get_weights()
    settings = {"verbose": 0, "shuffle": False, **FIT[kind](*small_data())}
    a, b = ours.fit(**settings), theirs.fit(**settings)
    assert_same_logs(a.history, b.history, 1e-5)
    assert_same(ours, theirs, 1e-5)
    assert max(np.abs(a - b).max() for a, b in zip(before, ours.get_weights(), strict=True)) > 1e-2


@pytest.mark.slow
def test_fit_of_a_polynet_equals_keras():
    ours, theirs = pair()
    compiled(ours), compiled(theirs, run_eagerly=EAGERLY)
    settings = {"verbose": 0, "shuffle": False, **FIT["validation"](*data())}
    a, b = ours.fit(**settings), theirs.fit(**settings)
    assert_same_logs(a.history, b.history)
    assert_same(ours, theirs)


@on_tensorflow
@pytest.mark.parametrize("steps_per_execution", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_fit_a_dataset_with_a_smaller_last_batch(steps_per_execution):
    import tensorflow as tf

    ours, theirs = pair(make=few_layers)
    compiled(ours, theirs, rate=0.1, steps_per_execution=steps_per_execution)
    dataset = tf.data.Dataset.from_tensor_slices(small_data()).batch(BATCH)
    settings = {"verbose": 0, "shuffle": False}
    assert_same_logs(ours.fit(dataset, **settings).history, theirs.fit(dataset, **settings).history, 1e-5)
    assert_same(ours, theirs, 1e-5)
    for model in (ours, theirs):
        model.fit(dataset.repeat(), steps_per_epoch=5, **settings)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations) >= 2 + 5


@on_tensorflow
def test_one_trace_for_batches_of_any_size():
    (model,) = compiled(few_layers(), loss=(loss := Traces()))
    model.fit(*small_data(7), batch_size=3, epochs=2, verbose=0)
    # Not again for the smaller last batch, nor for the metrics.
    first = loss.count
    assert first == 1
    model.fit(*small_data(6), batch_size=2, verbose=0)  # another specification: batches of 2, all of them
    assert loss.count <= 2
    model.evaluate(*small_data(7), batch_size=3, verbose=0)
    model.evaluate(*small_data(7), batch_size=3, verbose=0)
    assert loss.count <= 3


@on_tensorflow
def test_metrics_and_optimizer_are_made_before_the_trace():
    built = []

    def loss(y_true, y_pred):
        built.append(model.optimizer.built)
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    (model,) = compiled(few_layers(), loss=loss)
    model.fit(*small_data(3), batch_size=3, verbose=0)
    assert built == [True]  # one trace
    assert int(model.optimizer.iterations) == 1
    counted = {metric.name: [float(np.asarray(v).sum()) for v in metric.variables] for metric in model.metrics}
    assert counted["loss"][1] == 3.0  # examples: the preparation counted none


@on_tensorflow
def test_an_optimizer_that_is_built_stays_as_it_is():
    """Keras's own do, but for the one that scales the loss; those of users may not."""
    model = few_layers()
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=8.0)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    x, y = small_data(3)
    model.train_on_batch(x, y)
    variables = list(optimizer.variables)
    model.train_on_batch(x, y, np.ones(3))  # another function
    assert len(optimizer.variables) == len(variables)
    assert float(optimizer.dynamic_scale) == 8.0
    assert int(optimizer.step_counter) == 2


class Runs(keras.metrics.MeanMetricWrapper):
    """Counts how often Python runs it."""

    def __init__(self):
        super().__init__(keras.losses.sparse_categorical_crossentropy, name="runs")
        self.runs = 0

    def update_state(self, *arguments, **options):
        self.runs += 1
        return super().update_state(*arguments, **options)


@on_tensorflow
def test_metrics_are_made_once():
    (model,) = compiled(few_layers(), metrics=[metric := Runs()])
    x, y = small_data(3)
    model.train_on_batch(x, y)
    assert metric.runs == 2  # before the trace, and in it
    model.train_on_batch(x, y, np.ones(3))  # other data are another function
    assert metric.runs == 3


@pytest.mark.slow
@on_tensorflow
def test_metrics_whose_variables_are_of_the_outputs_shape():
    metric = keras.metrics.F1Score()
    (model,) = compiled(few_layers(), loss="categorical_crossentropy", metrics=[metric])
    x, y = small_data(3)
    model.fit(x, np.eye(4, dtype="float32")[y], verbose=0)
    assert [tuple(variable.shape) for variable in metric.variables] == [(4,)] * 4


@pytest.mark.parametrize(("make", "side"), [(few_layers, 12), pytest.param(network, SIDE, marks=pytest.mark.slow)])
def test_evaluate_and_predict_equal_keras(make, side):
    ours = make()
    randomize(ours, 1)
    theirs = keras.Model(ours.inputs, ours.outputs)
    compiled(ours), compiled(theirs, run_eagerly=EAGERLY)
    x, y = data(7, seed=1, side=side)
    np.testing.assert_allclose(
        ours.evaluate(x, y, batch_size=3, verbose=0), theirs.evaluate(x, y, batch_size=3, verbose=0), rtol=1e-5
    )
    expected = theirs.predict(x, batch_size=3, verbose=0)
    np.testing.assert_allclose(ours.predict(x, batch_size=3, verbose=0), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours.predict_on_batch(x), expected, rtol=1e-4, atol=1e-6)


def test_on_batch_methods_equal_keras():
    ours, theirs = small_pair(seed=2)
    for seed, (count, weighted) in enumerate([(6, False), (8, True)]):
        x, y = small_data(count, seed)
        arguments = {"sample_weight": np.linspace(0.5, 1.5, count).astype("float32")} if weighted else {}
        for method in ("train_on_batch", "test_on_batch"):
            found = getattr(ours, method)(x, y, return_dict=True, **arguments)
            expected = getattr(theirs, method)(x, y, return_dict=True, **arguments)
            assert_same_logs(found, expected, 1e-5)
    assert_same(ours, theirs, 1e-5)
    assert int(ours.optimizer.iterations) == 2


@on_tensorflow
@pytest.mark.parametrize(
    "arguments",
    [
        {"run_eagerly": True},
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
        pytest.param({"steps_per_execution": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_other_ways_to_run_are_kerass(arguments):
    ours, theirs = pair(seed=3, make=few_layers)
    compiled(ours, theirs, rate=0.1, **arguments)
    settings = {"batch_size": BATCH, "verbose": 0, "shuffle": False}
    a, b = ours.fit(*small_data(12), **settings), theirs.fit(*small_data(12), **settings)
    assert_same_logs(a.history, b.history, 1e-5)
    assert_same(ours, theirs, 1e-5)
    x, y = small_data(5, seed=1)
    a, b = (model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True) for model in (ours, theirs))
    assert_same_logs(a, b, 1e-5)
    a, b = (model.predict(x, batch_size=2, verbose=0) for model in (ours, theirs))
    np.testing.assert_allclose(a, b, rtol=1e-5)
    for name in ("train_function", "test_function", "predict_function"):
        function = getattr(ours, name)
        assert type(function) is type(getattr(theirs, name))
        getattr(ours, f"make_{name}")()
        assert getattr(ours, name) is function  # made once
        getattr(ours, f"make_{name}")(force=True)
        assert getattr(ours, name) is not function


@on_tensorflow
def test_a_train_step_of_ones_own():
    class Doubled(Network):
        def train_step(self, data):
            return {**super().train_step(data), "twice": 2.0 * self.metrics[0].result()}

    (model,) = compiled(few_layers(kind=Doubled))
    logs = model.train_on_batch(*small_data(3), return_dict=True)
    assert logs["twice"] == pytest.approx(2 * logs["loss"], rel=1e-6)


@on_tensorflow
def test_a_mistake_says_what_is_wrong():
    (model,) = compiled(few_layers())
    x, y = small_data(3)
    with pytest.raises(ValueError, match="12, 12, 3"):
        model.fit(x[:, :6], y, verbose=0)
    with pytest.raises(ValueError, match="shape"):
        model.fit(x, np.zeros((3, 2, 2)), verbose=0)


@on_tensorflow
def test_the_processs_own_graph_passes_are_left_alone():
    import tensorflow as tf
    from tensorflow.python.eager import context

    from polynet_keras.engine import compiled_step

    before = tf.config.optimizer.get_experimental_options()
    call_options = context.context().function_call_options
    (model,) = compiled(few_layers())
    model.fit(*small_data(3), verbose=0)
    assert tf.config.optimizer.get_experimental_options() == before
    assert context.context().function_call_options is call_options
    assert not compiled_step._passes_are_chosen()
    tf.config.optimizer.set_experimental_options({"remapping": False})
    try:
        assert compiled_step._passes_are_chosen()
        (model,) = compiled(few_layers())
        model.fit(*small_data(3), verbose=0)
    finally:
        tf.config.optimizer.set_experimental_options({"remapping": None})
    assert tf.config.optimizer.get_experimental_options() == before


@pytest.mark.slow
@on_tensorflow
def test_passes_that_are_not_chosen_do_not_run():
    """Constant folding, for one, would leave no product of constants."""
    import tensorflow as tf
    from tensorflow.python.eager import context

    from polynet_keras.engine.compiled_step import FlatFunction

    function = FlatFunction(few_layers(), lambda x: x + tf.constant(2.0) * tf.constant(3.0))
    x = tf.ones((2, 3))
    context.enable_run_metadata()
    try:
        assert np.all(function(x, tf.TensorSpec.from_tensor(x)) == 7)
        graphs = context.export_run_metadata().function_graphs
    finally:
        context.disable_run_metadata()
    assert "Mul" in [node.op for graph in graphs for node in graph.post_optimization_graph.node]


@on_tensorflow
def test_a_gpus_passes_are_left_alone(monkeypatch):
    import tensorflow as tf

    from polynet_keras.engine import compiled_step

    devices = {"GPU": ["one"], "CPU": ["one"]}
    monkeypatch.setattr(tf.config, "list_physical_devices", devices.get)
    assert compiled_step._passes_are_chosen()
    devices["GPU"] = []
    assert not compiled_step._passes_are_chosen()


@on_tensorflow
def test_passes_that_are_left_out_of_the_process_are_somebodys_choice():
    import tensorflow as tf

    from polynet_keras.engine import compiled_step

    for option in ("disable_meta_optimizer", "disable_model_pruning"):
        tf.config.optimizer.set_experimental_options({option: True})
        try:
            assert compiled_step._passes_are_chosen()
        finally:
            tf.config.optimizer.set_experimental_options({option: False})
    assert not compiled_step._passes_are_chosen()


@on_tensorflow
def test_which_passes_are_run():
    from polynet_keras.engine import compiled_step

    options = compiled_step._config().graph_options.rewrite_options
    fields = options.DESCRIPTOR.fields
    toggles = [field.name for field in fields if field.enum_type is not None and field.enum_type.name == "Toggle"]
    assert len(toggles) > 10
    assert {name for name in toggles if getattr(options, name) != options.OFF} == {"remapping"}
    assert options.memory_optimization == options.NO_MEM_OPT
    assert options.meta_optimizer_iterations == options.ONE
    assert options.cpu_layout_conversion == 0


@on_tensorflow
def test_the_steps_name_is_the_functions():
    import functools

    import tensorflow as tf

    from polynet_keras.engine.compiled_step import FlatFunction

    model = few_layers()
    for step, name in ((model.predict_step, "predict_step"), (functools.partial(model.predict_step), "step")):
        x = tf.zeros((2, 12, 12, 3))
        function = FlatFunction(model, step)
        function(x, tf.TensorSpec.from_tensor(x))
        ((_, with_passes),) = function._compiled
        assert with_passes._function.name.startswith(f"__inference_{name}_".encode())


@on_tensorflow
def test_batches_of_arrays_share_a_function():
    (model,) = compiled(few_layers(), loss=(loss := Traces()))
    model.make_train_function()
    for count in (2, 3, 4):
        x, y = small_data(count)
        model.predict_on_batch(x)
        model.train_function(iter([(x, y)]))
        (((image,), _),) = compiled_functions(model.predict_function)
        assert tuple(image.shape) == (None, 12, 12, 3)
    assert loss.count == 1


@on_tensorflow
def test_how_steps_of_a_strategy_are_compiled():
    from polynet_keras.engine.compiled_step import FlatFunction

    model = few_layers()

    def step(data):
        return data + 1

    compiled(model)
    assert isinstance(model.compiled_function(step), FlatFunction)
    for arguments in ({"run_eagerly": True}, {"jit_compile": True}):
        compiled(model, **arguments)
        function = model.compiled_function(step)
        assert not isinstance(function, FlatFunction)
        assert function(np.float32(1), None) == 2


@on_tensorflow
@pytest.mark.parametrize("devices", [("CPU",), ("CPU", "GPU")], ids=" and ".join)
def test_with_a_gpu_keras_compiles_the_step_by_xla(devices, monkeypatch):
    """As `jit_compile="auto"` means there, of which `compile` makes a bool."""
    import tensorflow as tf

    from polynet_keras.engine.compiled_step import CompiledStep

    def visible(kind=None):
        return [tf.config.PhysicalDevice(f"/physical_device:{one}:0", one) for one in devices if kind in (None, one)]

    monkeypatch.setattr(tf.config, "list_physical_devices", visible)
    (model,) = compiled(few_layers())
    model.make_train_function()
    assert model.jit_compile is ("GPU" in devices)
    assert isinstance(model.train_function, CompiledStep) is ("GPU" not in devices)


@on_tensorflow
def test_steps_of_a_strategy_are_its_own():
    import tensorflow as tf

    from polynet_keras.engine.compiled_step import CompiledStep

    made = {}
    for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0"])):
        with strategy.scope():
            (model,) = compiled(few_layers())
        model.make_train_function()
        made[type(strategy).__name__] = isinstance(model.train_function, CompiledStep)
        step, _ = model.train_function, model.make_train_function()
        assert model.train_function is step
    assert list(made.values()) == [True, False]


@on_tensorflow
def test_sparse_tensors_are_tensors():
    import tensorflow as tf

    from polynet_keras.engine.compiled_step import _as_tensors

    sparse = tf.sparse.from_dense([[0.0, 1.0]])
    found, none, array = _as_tensors((sparse, None, np.ones(2, "float32")))
    assert found is sparse
    assert none is None
    assert tf.is_tensor(array)


@on_tensorflow
def test_an_evaluation_makes_no_optimizers_variables():
    """They are as large as the model, or twice that."""
    (model,) = compiled(few_layers())
    model.evaluate(*small_data(3), verbose=0)
    assert not model.optimizer.built


def compiled_functions(step):
    return step._function._compiled


@pytest.mark.slow
@on_tensorflow
def test_a_third_size_is_no_new_function():
    model = few_layers((None, None, 3))
    randomize(model, 0)
    theirs = keras.Model(model.inputs, model.outputs)
    for side in (9, 12, 16, 20):
        x, _ = data(2, side=side)
        np.testing.assert_allclose(model.predict(x, verbose=0), theirs(x), rtol=1e-5, atol=1e-6)
        ((_, function),) = compiled_functions(model.predict_function)
        if side == 12:
            second = function
        assert side < 12 or function is second


@on_tensorflow
def test_axes_that_no_input_has_may_be_of_any_size():
    """Of boxes, say, of which each image has another number."""
    import tensorflow as tf

    from polynet_keras.engine.compiled_step import FlatFunction

    function = FlatFunction(few_layers(), lambda boxes: tf.shape(boxes)[1])
    for count in (2, 3, 5):
        boxes = tf.zeros((4, count, 2))
        assert function(boxes, tf.TensorSpec.from_tensor(boxes)) == count
    assert len(function._compiled) == 1


@on_tensorflow
def test_batches_of_other_static_sizes_share_a_function():
    import tensorflow as tf

    (model,) = compiled(few_layers())
    for size in (2, 3, 4):
        dataset = tf.data.Dataset.from_tensor_slices(small_data(size)).batch(size, drop_remainder=True)
        model.fit(dataset, verbose=0)
    assert len(compiled_functions(model.train_function)) == 1


@on_tensorflow
def test_an_image_of_the_wrong_size_is_refused_after_right_ones():
    """The sizes that the input fixes must not be opened: nothing would check them any more."""
    (model,) = compiled(few_layers())
    x, y = small_data(3)
    for _ in range(2):
        model.fit(x, y, verbose=0)
        with pytest.raises(ValueError, match="12, 12, 3"):
            model.fit(x[:, :6], y, verbose=0)


@pytest.mark.slow
@on_tensorflow
def test_other_structures_and_dtypes_have_functions_of_their_own():
    (model,) = compiled(few_layers())
    x, y = small_data(3)
    weights = np.ones(3)
    for arguments in ((x, y, weights), (x, y), (x, y.astype("float32")), (x, y), (x, y, weights)):
        model.train_on_batch(*arguments)
    assert len(compiled_functions(model.train_function)) == 3
    with pytest.warns(UserWarning, match="structure of `inputs`"):
        model.train_on_batch({"image": x}, y)
    assert len(compiled_functions(model.train_function)) == 4


@on_tensorflow
def test_a_step_of_ones_own_trains_what_it_likes():
    import tensorflow as tf

    extra = keras.Variable(np.ones(3, "float32"))

    class Own(Network):
        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(extra.value)) + tf.reduce_mean(self(data[0], training=True))
            variables = [self.trainable_variables[-1], extra]
            gradients = tape.gradient(loss, [variable.value for variable in variables])
            self.optimizer.apply(gradients, variables)
            return {"loss": loss}

    model = few_layers(kind=Own)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    model.fit(*small_data(3), verbose=0)
    np.testing.assert_allclose(extra.numpy(), 0.8, rtol=1e-6)
    assert len(model.optimizer.variables) == 4  # iterations, learning rate, two momentums


@pytest.mark.slow
@on_tensorflow
def test_remat_may_change_during_fit():
    (model,) = compiled(network(structure=SMALLEST))

    class Change(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.remat = "all" if epoch else "none"

    history = model.fit(*data(3), epochs=2, verbose=0, callbacks=[Change()]).history
    assert model._rematerialized is not None
    assert np.isfinite(history["loss"]).all()


@on_tensorflow
def test_functions_run_eagerly_where_the_process_says_so():
    import tensorflow as tf

    eager = []

    def loss(y_true, y_pred):
        eager.append(tf.executing_eagerly())
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    (model,) = compiled(few_layers(), loss=loss)
    x, y = small_data(3)
    model.fit(x, y, verbose=0)
    assert not any(eager)
    tf.config.run_functions_eagerly(True)
    try:
        eager.clear()
        model.fit(x, y, verbose=0)
        model.evaluate(x, y, verbose=0)
        assert model.predict(x, verbose=0).shape == (3, 4)
    finally:
        tf.config.run_functions_eagerly(False)
    assert len(eager) == 2
    assert all(eager)


@pytest.mark.slow
@on_tensorflow
def test_the_step_runs_with_the_chosen_graph_passes():
    """Remapping makes one operation of a convolution, its normalization and its ReLU; without it there are three."""
    from tensorflow.python.eager import context

    (model,) = compiled(network(structure=SMALLEST))
    x, _ = data(3)
    context.enable_run_metadata()
    try:
        model.predict(x, verbose=0)
        graphs = context.export_run_metadata().function_graphs
    finally:
        context.disable_run_metadata()
    fused = [node for graph in graphs for node in graph.post_optimization_graph.node if node.op.startswith("_Fused")]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(fused) >= len(convolutions) / 2


@pytest.mark.slow
@on_tensorflow
def test_none_from_a_generator():
    x, y = small_data(6)
    ours, theirs = small_pair(seed=4)
    compiled(ours, rate=0.1, weighted_metrics=["accuracy"])
    compiled(theirs, rate=0.1, weighted_metrics=["accuracy"], run_eagerly=EAGERLY)

    def batches():
        yield x, y, None

    a, b = (model.fit(batches(), steps_per_epoch=1, shuffle=False, verbose=0) for model in (ours, theirs))
    assert_same_logs(a.history, b.history, 1e-5)


@on_tensorflow
def test_data_of_ones_own():
    class Two(Network):
        def train_step(self, data):
            first, second, extra, more = data
            return {
                "sum": keras.ops.sum(self(first))
                + keras.ops.sum(self(second))
                + keras.ops.cast(keras.ops.sum(extra + more), "float32")
            }

    model = few_layers(kind=Two)
    model.compile("sgd")
    x, y = small_data(6)
    logs = model.fit(((x, x, y, y) for _ in range(1)), steps_per_epoch=1, shuffle=False, verbose=0).history
    assert logs["sum"][0] == pytest.approx(2 * 6 + 2 * y.sum(), rel=1e-4)


@on_tensorflow
def test_compiled_again():
    ours, theirs = pair(seed=5, make=few_layers)
    for rate, frozen in ((0.1, False), (0.2, True)):
        kernel = keras.ops.convert_to_numpy(ours.get_layer("stem_conv1").kernel)
        for model in (ours, theirs):
            model.get_layer("stem_conv1").trainable = not frozen
            model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", run_eagerly=model is theirs)
            model.train_on_batch(*small_data(6))
        assert_same(ours, theirs, 1e-5)
        assert np.array_equal(keras.ops.convert_to_numpy(ours.get_layer("stem_conv1").kernel), kernel) == frozen


# Rematerialization.


def forward_and_backward(model, remat, training=True):
    """Outputs, gradients and the moving statistics after them."""
    model.remat = remat
    x, _ = data(6, seed=5)
    weighting = np.random.default_rng(6).normal(size=(6, 4))
    before = model.get_weights()
    found = gradients(model, x, weighting, training=training)
    after = model.get_weights()
    model.set_weights(before)
    return found, after


@pytest.mark.parametrize("remat", ["stage_b", pytest.param("all", marks=pytest.mark.slow)])
@pytest.mark.parametrize("share_projection", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_rematerialized_gradients_and_statistics(remat, share_projection):
    # Only the orders of a polynomial share anything.
    structure = "1 x [ir] | 1 x [poly-3] | 1 x [ir]" if share_projection else STRUCTURE
    model = network(classifier_activation=None, share_projection=share_projection, structure=structure)
    randomize(model, 7)
    expected, statistics = forward_and_backward(model, "none")
    found, after = forward_and_backward(model, remat)
    for variable, a, b in zip(model.trainable_variables, found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max(), err_msg=variable.path)
    if keras.backend.backend() != "jax":  # whose gradient function here hands no statistics on; `fit` does, below
        before = model.get_weights()
        assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(before, statistics, strict=True))
    for a, b in zip(after, statistics, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["stage_b", "all"])
def test_rematerialized_fit(remat):
    ours, theirs = pair(seed=8)
    compiled(ours), compiled(theirs, run_eagerly=EAGERLY)
    ours.remat = remat
    settings = {"batch_size": BATCH, "verbose": 0, "shuffle": False}
    assert_same_logs(ours.fit(*data(), **settings).history, theirs.fit(*data(), **settings).history)
    assert_same(ours, theirs)


@pytest.mark.slow
def test_rematerialized_with_frozen_layers():
    ours, theirs = pair(seed=9, structure="1 x [ir] | 1 x [poly-2] | 1 x [ir]")
    for model in (ours, theirs):
        for layer in model.layers:
            layer.trainable = not layer.name.startswith("stage_b_01")
    compiled(ours), compiled(theirs, run_eagerly=EAGERLY)
    ours.remat = "all"
    settings = {"batch_size": BATCH, "verbose": 0, "shuffle": False}
    ours.fit(*data(), **settings)
    theirs.fit(*data(), **settings)
    assert_same(ours, theirs)


def test_rematerialized_stochastic_depth_draws_once():
    """With all paths dropped or kept, outputs and gradients must agree on what was dropped."""
    model = network(structure="1 x [2-way] | 1 x [poly-2] | 1 x [ir]", classifier_activation=None, remat="all")
    randomize(model, 10)
    for layer in model.layers:
        if isinstance(layer, StochasticResidualScaling):
            layer.active.assign(True)
            layer.survival_probability.assign([0.5] * layer.survival_probability.shape[0])
    x, _ = data(6)
    states = [layer.seed_generator.state for layer in model.layers if isinstance(layer, StochasticResidualScaling)]
    seeds = [np.asarray(keras.ops.convert_to_numpy(state)) for state in states]
    found = {}
    for remat in ("none", "all"):
        for state, seed in zip(states, seeds, strict=True):
            state.assign(seed)
        model.remat = remat
        found[remat] = gradients(model, x, np.ones((6, 4)))
    for a, b in zip(found["all"], found["none"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@on_tensorflow
@pytest.mark.slow
def test_rematerialization_recomputes_the_convolutions():
    import tensorflow as tf

    model = network(structure="1 x [2-way] | 1 x [poly-2] | 1 x [ir]")
    model.get_layer("stage_b_01_ff_branch1_conv2_bn").trainable = False

    def backward(x):
        with tf.GradientTape() as tape:
            y = model(x, training=True)
        return tape.gradient(y, [variable.value for variable in model.trainable_variables])

    assigned = set()

    def convolutions(remat):
        model.remat = remat
        spec = tf.TensorSpec((2, SIDE, SIDE, 3))
        graph = tf.function(backward, autograph=False).get_concrete_function(spec).graph
        kinds = [op.type for op in graph.get_operations()]
        assigned.add(kinds.count("AssignVariableOp"))
        return kinds.count("Conv2D")

    applications = {"a": 2, "b": 2, "c": 1}  # of Inception blocks, in each stage
    per_block = {"a": 7, "b": 5, "c": 5}
    total = convolutions("none")
    assert total == sum(len(layer._inbound_nodes) for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    assert convolutions("stage_b") == total + applications["b"] * per_block["b"]
    assert convolutions("all") == total + sum(applications[stage] * per_block[stage] for stage in "abc")
    assert len(assigned) == 1  # the moving statistics, and no parameter


def test_remat_argument():
    model = network(structure=SMALLEST)
    assert model.remat == "none"
    assert network(structure=SMALLEST, remat="all").remat == "all"
    assert InceptionResNet((1, 1, 1), weights=None, width=0.1, remat="stage_b").remat == "stage_b"
    for bad in ("stage_a", True, None):
        with pytest.raises(ValueError, match="remat=.* must be one of none, stage_b, all"):
            network(remat=bad)
    with pytest.raises(ValueError, match="remat='everything'"):
        model.remat = "everything"
    assert few_layers().remat == "none"
    assert Network.from_config({k: v for k, v in few_layers().get_config().items() if k != "remat"}).remat == "none"


def test_when_units_are_rematerialized():
    """In training, by the latest choice, and without what a unit does not know: masks."""
    model, _ = one_output()
    x = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    randomize(model, 0)
    model(x, training=True)
    assert model._rematerialized is None
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    model.remat = "all"
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x, training=False)), expected, rtol=1e-6)
    mask = keras.ops.ones(6, "bool")
    model(x, training=True, mask=mask)
    assert model._rematerialized is None
    with_two, _ = two_inputs()
    with_two.remat = "all"
    with_two([x, x], training=True, mask=[mask, None])
    assert with_two._rematerialized is None
    for remat, count in (("all", 2), ("stage_b", 1), ("none", None)):
        model.remat = remat
        model(x, training=True)
        units = None if model._rematerialized is None else len(model._rematerialized.units)
        assert units == count


# Every way to wire a functional model.


class Units:
    """Residual units of dense layers, to be called on any tensor, and again."""

    def __init__(self, names=("stage_a_01", "stage_b_01")):
        self.stages = [
            (
                keras.layers.Dense(4, name=f"{name}_f_conv1"),
                keras.layers.BatchNormalization(name=f"{name}_f_bn"),
                keras.layers.Dense(4, name=f"{name}_f_projection"),
                StochasticResidualScaling(0.5, name=f"{name}_sum_f"),
            )
            for name in names
        ]
        self.inner = []

    def __call__(self, x):
        for first, bn, last, total in self.stages:
            self.inner.append(bn(first(x)))
            x = total([x, last(keras.ops.relu(self.inner[-1]))])
        return x


def pixels(name=None):
    return keras.Input((4,), name=name)


def one_output():
    x = pixels()
    return Network(x, Units()(x)), 2


def a_list_of_one_output():
    x = pixels()
    return Network([x], [Units()(x)]), 2


def two_outputs():
    x = pixels()
    y = Units()(x)
    return Network(x, [y, keras.layers.Dense(3)(y)]), 2


def outputs_by_name():
    x = pixels()
    first = Units()(x)
    second = Units(("stage_c_01",))(first)
    return Network(x, {"last": second, "first": first}), 3


def nested_outputs():
    x = pixels()
    y = Units()(x)
    return Network(x, (y, [keras.layers.Dense(3)(y), x])), 2


def an_output_inside_a_unit():
    x = pixels()
    units = Units()
    return Network(x, [units(x), units.inner[0]]), 1


def a_layer_that_uses_the_inside_of_a_unit():
    x = pixels()
    units = Units()
    y = units(x)
    return Network(x, keras.layers.Add()([y, units.inner[1]])), 1


def two_inputs():
    x, more = pixels("x"), pixels("more")
    return Network([x, more], keras.layers.Concatenate()([Units()(x), more])), 2


def inputs_by_name():
    x, more = pixels("x"), pixels("more")
    return Network({"x": x, "more": more}, keras.layers.Concatenate()([Units()(x), more])), 2


def layers_that_are_shared():
    x, more = pixels(), pixels()
    units = Units()
    return Network([x, more], units(x) - units(more)), 4


def a_layer_that_is_shared_by_a_long_and_a_short_path():
    """Both move its statistics: the long path first, which ends last."""
    x, more = pixels(), pixels()
    bn = keras.layers.BatchNormalization(momentum=0.5)
    path = keras.layers.Dense(4)(keras.layers.Dense(4)(bn(x)))
    total = StochasticResidualScaling(0.5, name="stage_a_01_sum_f")([x, path])
    other = StochasticResidualScaling(0.5, name="stage_b_01_sum_f")([more, bn(more)])
    return Network([x, more], total - keras.layers.ReLU()(other)), 2


def a_path_from_another_input():
    x, more = pixels(), pixels()
    total = StochasticResidualScaling(0.5, name="stage_b_01_sum_f")
    return Network([x, more], total([x, keras.layers.Dense(4)(more)])), 0


def a_path_from_both_inputs():
    x, more = pixels(), pixels()
    total = StochasticResidualScaling(0.5, name="stage_b_01_sum_f")
    return Network([x, more], total([x, keras.layers.Add()([keras.layers.Dense(4)(x), more])])), 0


def a_unit_of_nothing():
    x = pixels()
    return Network(x, StochasticResidualScaling(0.5, name="stage_b_01_sum_f")([x, x])), 0


def a_unit_in_a_path():
    x = pixels()
    total = StochasticResidualScaling(0.5, name="stage_c_01_sum_f")
    return Network(x, total([x, keras.layers.Dense(4)(Units()(x))])), 2


def from_the_middle():
    x = pixels()
    start = Units()(x)
    whole = Network(x, Units(("stage_c_01",))(start))
    return Network(start, whole.output), 1


def a_network_in_a_network():
    x, more = pixels(), pixels()
    inner = Network(x, Units(("stage_b_01",))(x))
    inner.remat = "all"
    return Network(more, Units(("stage_c_01",))(inner(more))), 1


def a_clone():
    x = pixels()
    y = Units()(x)
    return keras.models.clone_model(Network(x, [y, keras.layers.Dense(3)(y)])), 2


WIRINGS = (
    one_output,
    pytest.param(a_list_of_one_output, marks=pytest.mark.slow),
    pytest.param(two_outputs, marks=pytest.mark.slow),
    pytest.param(outputs_by_name, marks=pytest.mark.slow),
    pytest.param(nested_outputs, marks=pytest.mark.slow),
    an_output_inside_a_unit,
    pytest.param(a_layer_that_uses_the_inside_of_a_unit, marks=pytest.mark.slow),
    two_inputs,
    pytest.param(inputs_by_name, marks=pytest.mark.slow),
    layers_that_are_shared,
    pytest.param(a_layer_that_is_shared_by_a_long_and_a_short_path, marks=pytest.mark.slow),
    pytest.param(a_path_from_another_input, marks=pytest.mark.slow),
    pytest.param(a_path_from_both_inputs, marks=pytest.mark.slow),
    pytest.param(a_unit_of_nothing, marks=pytest.mark.slow),
    a_unit_in_a_path,
    pytest.param(from_the_middle, marks=pytest.mark.slow),
    pytest.param(a_network_in_a_network, marks=pytest.mark.slow),
    pytest.param(a_clone, marks=pytest.mark.slow),
)


@pytest.mark.parametrize("wire", WIRINGS, ids=lambda wire: wire.__name__)
def test_rematerialization_of_any_wiring(wire):
    model, units = wire()
    rng = np.random.default_rng(0)
    x = keras.tree.map_structure(lambda i: rng.normal(size=(6, *i.shape[1:])).astype("float32"), model.input)
    y = keras.tree.map_structure(lambda o: rng.normal(size=(6, *o.shape[1:])).astype("float32"), model.output)
    before = model.get_weights()
    results = {}
    for remat in ("none", "all"):
        model.remat = remat
        model.set_weights(before)
        losses = keras.tree.map_structure(lambda _: "mse", model.output)
        model.compile(keras.optimizers.SGD(0.1), losses, run_eagerly=EAGERLY and remat == "none")
        model.train_on_batch(x, y)
        in_step, model._rematerialized = model._rematerialized, None
        results[remat] = (model(x, training=True), model.get_weights())
    (expected, weights), (found, after) = results["none"], results["all"]
    assert in_step is not None
    assert len(in_step.units) == len(model._rematerialized.units) == units
    keras.tree.assert_same_structure(found, expected)
    for a, b in zip(keras.tree.flatten((found, after)), keras.tree.flatten((expected, weights)), strict=True):
        a, b = keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    if units:
        changed = [np.abs(a - b).max() > 1e-4 for a, b in zip(before, after, strict=True)]
        assert sum(changed) > 2 * units


@pytest.mark.slow
def test_a_sub_model_is_a_model():
    model = network(structure=SMALLEST, remat="all")
    inner = keras.Model(model.input, [model.output, model.get_layer("stage_b_01_sum_f").output])
    x, _ = data(2)
    probabilities, features = inner(x, training=True)
    assert (tuple(probabilities.shape), features.shape[0]) == ((2, 4), 2)
    assert not isinstance(inner, Network)


def test_a_network_is_made_of_inputs_and_outputs():
    class Own(Network):
        def __init__(self):
            super().__init__(name="own")

    class Functional(Network):
        def __init__(self):
            made = few_layers()
            super().__init__(inputs=made.inputs, outputs=made.outputs)

    with pytest.raises(TypeError, match=r"make Own from inputs and outputs, .* DistributedTraining and keras.Model"):
        Own()
    assert Functional().output_shape == (None, 4)


# Saving and copying.


@pytest.mark.slow
def test_saved_and_loaded_as_what_it_is(tmp_path):
    (model,) = compiled(network(structure=SMALLEST, remat="stage_b"))
    randomize(model, 11)
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, Network)
    assert loaded.remat == "stage_b"
    x, _ = data()
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    copy = keras.models.clone_model(model)
    assert (copy.remat, type(copy)) == ("none", Network)
    copy.set_weights(model.get_weights())
    np.testing.assert_allclose(copy.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)
    assert Network.from_config(json.loads(json.dumps(model.get_config()))).remat == "stage_b"


def test_a_network_carries_its_structure():
    model = network(structure="2 x [ir] | 1 x [I + F + F^2] | 1 x [IR]")
    assert model.structure == "2 x [ir] | 1 x [poly-2] | 1 x [ir]"
    assert InceptionResNet((1, 1, 1), width=0.1).structure == SMALLEST
    copy = Network.from_config(json.loads(json.dumps(model.get_config())))
    assert copy.structure == model.structure
    copy.structure = "IR-5-10-5"
    assert copy.structure == "5 x [ir] | 10 x [ir] | 5 x [ir]"
    with pytest.raises(ValueError, match="structure='»deeper', column 1: unknown structure"):
        copy.structure = "deeper"


@pytest.mark.slow
def test_what_is_built_of_a_networks_layers_has_no_structure():
    model = network(structure=SMALLEST)
    part = Network(model.inputs, model.get_layer("stage_b_01_relu").output)
    logits = Network(model.inputs, model.layers[-2].output)  # of all units, and no classifier
    for other in (part, logits, keras.models.clone_model(model)):
        assert other.structure is None
        # Its file says so, and is no older one.
        assert Network.from_config(other.get_config()).structure is None


def older(model):
    """From the config as it was before a network carried its structure."""
    config = model.get_config()
    del config["structure"]
    return Network.from_config(config)


@pytest.mark.slow
def test_the_structure_of_an_older_network_is_read_off_its_layers():
    for structure in (STRUCTURE, "11 x [ir] | 1 x [I + F^2] | 1 x [I + F + G + HF]"):
        model = network(structure=structure)
        assert older(model).structure == model.structure


def test_layers_of_ones_own_are_no_units():
    """Neither a residual sum by another name, nor another layer by the name of a sum."""
    trained = network(structure=SMALLEST)
    added = StochasticResidualScaling(0.5, name="mine")([trained.output, trained.output])
    assert older(Network(trained.input, added)).structure == SMALLEST
    x = inputs = keras.Input((4,))
    alone = StochasticResidualScaling(0.5, name="stage_a_01_sum_f")([inputs, inputs])
    assert older(Network(inputs, alone)).structure is None
    for stage in "abc":
        x = keras.layers.ReLU(name=f"stage_{stage}_01_sum_f")(x)
    assert older(Network(inputs, x)).structure is None


def test_variables_keep_their_keras_paths():
    model = network(structure="1 x [ir] | 1 x [poly-2] | 1 x [ir]")
    paths = [variable.path for variable in model.variables]
    assert "stem_conv1/kernel" in paths
    assert "stage_b_01_ff_branch1_conv2_bn/moving_variance" in paths
    assert len(set(paths)) == len(paths)


# Mixed precision.


def test_files_know_the_class_by_its_name():
    """What was saved by this name has to be found by it."""
    assert keras.saving.get_registered_name(Network) == "polynet_keras>Network"


def test_the_step_that_is_under_way_is_made_anew_for_another_remat():
    (model,) = compiled(few_layers())
    model.remat = "all"
    assert model.train_function is None  # `fit` makes it
    model.make_train_function()
    first = model.train_function
    model.remat = "none"
    assert model.train_function is not None
    assert model.train_function is not first


@pytest.mark.slow
def test_a_network_that_begins_inside_is_the_same_one(tmp_path):
    """It trains, counts and saves all its weights; the file begins with the images."""
    model, whole = network(structure=SMALLEST), network(structure=SMALLEST)
    randomize(model, 5)
    whole.set_weights(model.get_weights())
    x, y = data(8, seed=6)
    inside = "stage_a_01_relu"
    features = keras.Model(model.inputs, model.get_layer(inside).output).predict(x, verbose=0)
    for net in (model, whole):
        for layer in net.layers[: net.layers.index(net.get_layer(inside)) + 1]:
            layer.trainable = False
    compiled(model, whole)
    model.remat = "stage_b"
    model.begin_at(model.get_layer(inside).output)
    np.testing.assert_allclose(model.predict(features, verbose=0), whole.predict(x, verbose=0), rtol=1e-4, atol=1e-6)
    arguments = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    found, expected = model.fit(features, y, **arguments), whole.fit(x, y, **arguments)
    np.testing.assert_allclose(found.history["loss"], expected.history["loss"], rtol=1e-4)
    for one, other in zip(model.weights, whole.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    model.save(tmp_path / "net.keras")
    loaded = keras.saving.load_model(tmp_path / "net.keras")
    assert (loaded.input_shape, loaded.structure, loaded.remat) == (whole.input_shape, whole.structure, "stage_b")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), whole.predict(x, verbose=0), rtol=1e-3, atol=1e-5)
    model.save_weights(tmp_path / "net.weights.h5")
    whole.load_weights(tmp_path / "net.weights.h5")
    np.testing.assert_allclose(whole.predict(x, verbose=0), loaded.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's variables have names")
@pytest.mark.slow
def test_a_network_from_its_config_is_the_same_and_built_as_quickly():
    model = network(structure=SMALLEST, remat="all")
    config = model.get_config()
    for built in (model, Network.from_config(config), Network.from_config(config)):
        assert built.remat == "all"
        assert {variable.value.name for variable in built.weights} == {"variable:0"}


@pytest.fixture(scope="module")
def in_float32():
    """A network, what it predicts, and the losses of its first steps."""
    model = network(structure=SMALLEST, classifier_activation=None)
    randomize(model, 12)
    weights = model.get_weights()
    x, y = data(8, seed=13)
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    return weights, expected, losses_of(model, x, y)


def losses_of(model, x, y):
    model.compile(keras.optimizers.SGD(RATE), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model.fit(x, y, batch_size=8, epochs=4, shuffle=False, verbose=0).history["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "all"])
def test_mixed_bfloat16(in_float32, remat):
    """Logits and the first loss within bfloat16's rounding, 2^-8 a layer, of float32's; and it learns."""
    weights, expected, losses = in_float32
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = network(structure=SMALLEST, classifier_activation=None, remat=remat)
    finally:
        keras.config.set_dtype_policy(policy)
    mixed.set_weights(weights)
    assert mixed.get_layer("stem_conv1").compute_dtype == "bfloat16"
    assert all(keras.backend.standardize_dtype(v.dtype) == "float32" for v in mixed.trainable_variables)
    x, y = data(8, seed=13)
    found = keras.ops.convert_to_numpy(mixed(x, training=False))
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    mixed_losses = losses_of(mixed, x, y)
    assert mixed_losses[0] == pytest.approx(losses[0], rel=0.03)
    for values in (losses, mixed_losses):
        assert values[-1] < 0.8 * values[0]
    for variable in mixed.variables:
        assert np.isfinite(keras.ops.convert_to_numpy(variable)).all(), variable.path
