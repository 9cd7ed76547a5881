"""What distributed training is to give the same results in as training on one device: run by `test_model.py`.

    python scenarios.py CLASS STRATEGY REPLICAS OUT [SCENARIO...]

with the class `keras`, `ours` or `plain` (Keras's, on a PolyNet), and the strategy `none`, `mirrored` (logical
processors) or `multi_worker` (TF_CONFIG). OUT, or a file of the worker's number in the folder OUT, becomes JSON: by
scenario, lists of numbers.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from polynet_keras import PolyNet
from polynet_keras.basics.tuning import untuned
from polynet_keras.cluster.workers import worker_index
from polynet_keras.engine.distributed_model import DistributedModel, DistributedTraining
from polynet_keras.layers import BatchNormalization, StochasticResidualScaling, synchronize_batch_normalization
from polynet_keras.training.learning_rate_factors import AdamW
from polynet_keras.training.optimizers import RMSprop
from tests.engine.saturated import examples, model_of

EXAMPLES = 22  # batches of 8: the last one holds 6, and for four replicas parts of 2, 2, 2 and 0
BATCH = 8


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(EXAMPLES, 6)).astype("float32"), rng.integers(0, 3, EXAMPLES)


def net(model_class, *, dropout=0.0, normalization=None, dtype=None):
    keras.utils.set_random_seed(1)
    x = keras.Input((6,), name="x")
    h = keras.layers.Dense(8, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01), name="hidden")(x)
    if normalization:
        h = normalization(h)
    if dropout:
        h = keras.layers.Dropout(dropout, seed=5)(h)
    y = keras.layers.Dense(3, activation="softmax", dtype="float32", name="y")(h)
    return model_class(x, y)


def results(model, history=None, *more):
    """Weights (with moving statistics), optimizer's variables, losses and metrics."""
    numbers = {"weights": [w.astype("float64").ravel().tolist() for w in model.get_weights()]}
    numbers["optimizer"] = [np.asarray(v.numpy(), "float64").ravel().tolist() for v in model.optimizer.variables]
    if history is not None:
        numbers["history"] = [values for _, values in sorted(history.history.items())]
    numbers["more"] = [np.asarray(value, "float64").ravel().tolist() for value in more]
    return numbers


def everything(model_class, x, y, **options):
    """Uneven batches, class weights, clipping, averages of the weights, decay, validation, and the other methods."""
    model = net(model_class)
    optimizer = keras.optimizers.Adam(0.01, global_clipnorm=0.1, use_ema=True, weight_decay=0.01)
    metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)]
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=metrics, **options)

    def train():
        history = model.fit(
            x,
            y,
            BATCH,
            3,
            verbose=0,
            shuffle=False,
            class_weight={0: 1.0, 1: 2.0, 2: 3.0},
            validation_data=(x[:13], y[:13]),
        )
        outputs = model.predict(x, batch_size=BATCH, verbose=0)
        evaluated = model.evaluate(x, y, batch_size=5, verbose=0)
        on_batch = [model.train_on_batch(x[:7], y[:7]), model.test_on_batch(x[:9], y[:9])]
        return results(model, history, outputs, evaluated, *on_batch, model.predict_on_batch(x[:7]))

    return train


def gradient_accumulation(model_class, x, y):
    model = net(model_class)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2, clipnorm=0.05),
        "sparse_categorical_crossentropy",
    )
    return lambda: results(model, model.fit(x, y, BATCH, 3, verbose=0, shuffle=False))


def learning_rates_by_part(model_class, x, y):
    keras.utils.set_random_seed(13)
    h = inputs = keras.Input((6,))
    for name in ("stem_conv1", "stage_a_01_f", "predictions"):
        h = keras.layers.Dense(3, activation="softmax" if name == "predictions" else "tanh", name=name)(h)
    model = model_class(inputs, h)
    factors = {"stem": 0.2, "stage_a": 0.0}
    optimizer = AdamW(0.05, weight_decay=0.5, global_clipnorm=0.05, use_ema=True, learning_rate_factors=factors)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return lambda: results(model, model.fit(x, y, BATCH, 3, verbose=0, shuffle=False))


def several_steps_an_execution(model_class, x, y):
    return everything(model_class, x, y, steps_per_execution=2)


def compiled_by_xla(model_class, x, y):
    return everything(model_class, x, y, jit_compile=True)


def loss_scaling(model_class, x, y):
    """Float16 with dynamic loss scaling."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = net(model_class)
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.RMSprop(0.01), initial_scale=2.0**8, dynamic_growth_steps=4
    )
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return lambda: results(model, model.fit(x, y, BATCH, 4, verbose=0, shuffle=False))


def sums(model_class, x, y):
    model = net(model_class)
    model.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(reduction="sum"))
    return lambda: results(model, model.fit(x, y, BATCH, 2, verbose=0, shuffle=False))


def weighted_means(model_class, x, y):
    model = net(model_class)
    loss = keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight")
    model.compile(keras.optimizers.SGD(0.1), loss, weighted_metrics=["accuracy"])
    weights = np.linspace(0.0, 3.0, len(x)).astype("float32")
    return lambda: results(model, model.fit(x, y, BATCH, 2, verbose=0, shuffle=False, sample_weight=weights))


def dictionaries(model_class, x, y):
    """Named inputs and outputs, with weights for both losses, from a dataset; full batches only, for Keras's own losses
    of the outputs weigh a last, smaller one as the others."""
    x, y = x[: 2 * BATCH], y[: 2 * BATCH]
    keras.utils.set_random_seed(2)
    a, b = keras.Input((6,), name="a"), keras.Input((2,), name="b")
    joined = keras.layers.Concatenate()([a, b])
    outputs = {
        "y": keras.layers.Dense(3, activation="softmax", name="y")(joined),
        "z": keras.layers.Dense(1, name="z")(a),
    }
    model = model_class({"a": a, "b": b}, outputs)
    losses = {"y": "sparse_categorical_crossentropy", "z": "mse"}
    model.compile(keras.optimizers.Adam(0.01), losses, loss_weights={"y": 1.0, "z": 0.3}, metrics={"y": ["accuracy"]})
    weights = np.linspace(0.5, 2.0, len(x)).astype("float32")
    inputs, targets = {"a": x, "b": x[:, :2]}, {"y": y, "z": x[:, :1]}
    dataset = tf.data.Dataset.from_tensor_slices((inputs, targets, {"y": weights, "z": weights[::-1]})).batch(BATCH)
    return lambda: results(model, model.fit(dataset, epochs=2, verbose=0), *model.predict(dataset, verbose=0).values())


def subclassed(model_class, x, y):
    """A model that is no graph, built by its first batch."""

    bases = (keras.Model,) if model_class is keras.Model else (DistributedTraining, keras.Model)

    class Own(*bases):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(5, activation="tanh")
            self.head = keras.layers.Dense(3, activation="softmax")

        def call(self, inputs, training=None):
            return self.head(self.hidden(inputs))

    keras.utils.set_random_seed(3)
    model = Own()
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return lambda: results(model, model.fit(x, y, BATCH, 2, verbose=0, shuffle=False), model.predict(x, verbose=0))


def agreeing_draws(model_class, x, y):
    """Stochastic depth that is drawn for the whole batch: the same on all replicas."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((6,))
    path = keras.layers.Dense(6, activation="tanh", name="path")(inputs)
    h = StochasticResidualScaling(survival_probability=0.5, seed=3, name="unit")([inputs, path])
    model = model_class(inputs, keras.layers.Dense(3, activation="softmax", name="head")(h))
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return lambda: results(model, model.fit(x, y, BATCH, 4, verbose=0, shuffle=False))


def one_number(model_class, x, y):
    """A loss that returns its mean, on full batches: of an uneven one, no part's mean tells how many it is of."""
    x, y = x[: 2 * BATCH], y[: 2 * BATCH]
    model = net(model_class)
    own = keras.losses.SparseCategoricalCrossentropy()
    model.compile(keras.optimizers.SGD(0.1), lambda y_true, y_pred: keras.ops.mean(own.call(y_true, y_pred)))
    return lambda: results(model, model.fit(x, y, BATCH, 2, verbose=0, shuffle=False))


def sums_of_two_outputs(model_class, x, y):
    """Full batches, as in `dictionaries`."""
    x, y = x[: 2 * BATCH], y[: 2 * BATCH]
    keras.utils.set_random_seed(6)
    inputs = keras.Input((6,))
    outputs = [keras.layers.Dense(3, activation="softmax", name="y")(inputs), keras.layers.Dense(1, name="z")(inputs)]
    model = model_class(inputs, outputs)
    losses = [keras.losses.SparseCategoricalCrossentropy(reduction="sum"), keras.losses.MeanSquaredError("sum")]
    model.compile(keras.optimizers.SGD(0.01), losses)
    return lambda: results(model, model.fit(x, [y, x[:, :1]], BATCH, 2, verbose=0, shuffle=False))


def few_examples_first(model_class, x, y):
    """The first step has fewer examples than there are replicas."""
    model = net(model_class)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return lambda: results(model, None, model.train_on_batch(x[:1], y[:1]), model.test_on_batch(x[:3], y[:3]))


def frozen(model_class, x, y):
    """What does not train keeps its values, to the bit: see `test_model.py`."""
    model = net(model_class, normalization=keras.layers.BatchNormalization(name="normalization"))
    for name in ("hidden", "normalization"):
        model.get_layer(name).trainable = False
    values = [
        np.linspace(1, 3, int(np.prod(w.shape)), dtype="float32").reshape(w.shape) for w in model.non_trainable_weights
    ]
    for variable, value in zip(model.non_trainable_weights, values, strict=True):
        variable.assign(value)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")

    def train():
        history = model.fit(x, y, BATCH - 1, 3, verbose=0, shuffle=False)
        after = [w.numpy() for w in model.non_trainable_weights]
        moved = [np.abs(a - value).max() for a, value in zip(after, values, strict=True)]
        return results(model, history, *moved)

    return train


def idle_replicas(model_class, x, y, loss="sparse_categorical_crossentropy"):
    """The last batch, of fit, evaluate and predict, holds one example: of convolutions without any, oneDNN loses the
    shape."""
    keras.utils.set_random_seed(9)
    inputs = keras.Input((8, 8, 1))
    h = keras.layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    h = BatchNormalization(synchronized=True, momentum=0.5, name="normalization")(h)
    h = keras.layers.MaxPooling2D()(keras.layers.DepthwiseConv2D(2, name="second")(h))
    h = keras.layers.Conv2D(3, 2, kernel_regularizer=keras.regularizers.L2(0.01), name="third")(h)
    model = model_class(inputs, keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(h)))
    model.compile(keras.optimizers.SGD(0.005, momentum=0.9), loss, metrics=["accuracy"])
    images = np.random.default_rng(10).normal(size=(EXAMPLES, 8, 8, 1)).astype("float32")
    data = images, y

    def train():
        history = model.fit(*data, BATCH - 1, 3, verbose=0, shuffle=False, validation_data=(images[:15], y[:15]))
        evaluated = model.evaluate(*data, batch_size=BATCH - 1, verbose=0)
        on_batch = [model.train_on_batch(images[:1], y[:1]), model.predict_on_batch(images[:1])]
        return results(model, history, evaluated, model.predict(images, batch_size=BATCH - 1, verbose=0), *on_batch)

    return train


def transfer_learning(model_class, x, y):
    """Keras's usual idiom: a PolyNet without its classifier, frozen, in a Sequential model."""
    keras.utils.set_random_seed(11)
    base = PolyNet(
        include_top=False,
        weights=None,
        structure="1 x [ir] | 1 x [ir] | 1 x [ir]",
        width=0.05,
        input_shape=(75, 75, 3),
        pooling="avg",
    )
    base.trainable = False
    layers = [base, keras.layers.Dropout(0.0), keras.layers.Dense(3, activation="softmax", name="head")]
    model = keras.Sequential(layers)
    if issubclass(model_class, DistributedTraining):
        model = model_class(model.inputs, model.outputs)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    images = np.random.default_rng(12).normal(size=(7, 75, 75, 3)).astype("float32")

    def train():
        history = model.fit(images, y[:7], 4, 2, verbose=0, shuffle=False, validation_data=(images[:3], y[:3]))
        return results(model, history, model.predict(images, batch_size=4, verbose=0), model.evaluate(images, y[:7]))

    return train


def idle_replicas_and_sums(model_class, x, y):
    return idle_replicas(model_class, x, y, keras.losses.SparseCategoricalCrossentropy(reduction="sum"))


def saturated_outputs(model_class, x, y):
    """Six of eight examples, full batches as in `dictionaries`: on four replicas 2, 2, 2 and 0."""
    model, losses, targets = model_of(model_class)
    model.compile(keras.optimizers.SGD(0.1), losses)
    inputs, targets = examples()[:6], {name: target[:6] for name, target in targets.items()}
    return lambda: results(model, model.fit(inputs, targets, 6, 2, verbose=0, shuffle=False))


def gradients_in_float16(model_class, x, y):
    model = net(model_class)
    model.gradient_dtype = "float16"
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    return lambda: results(model, model.fit(x, y, BATCH, 3, verbose=0, shuffle=False))


def polynet(model_class, x, y):
    """A whole net with synchronized normalization, in float64: in float32 a young net turns another order of a sum into
    1e-4 of the first step's loss, on one device with another number of threads as well."""
    keras.config.set_dtype_policy("float64")
    try:
        keras.utils.set_random_seed(7)
        built = PolyNet(
            weights=None,
            input_shape=(75, 75, 1),
            classes=3,
            structure="1 x [2-way] | 1 x [poly-3] | 1 x [2-way]",
            width=0.0625,
            residual_scale=0.3,
        )
    finally:
        keras.config.set_dtype_policy("float32")
    synchronize_batch_normalization(built)
    model = model_class(built.inputs, built.outputs)
    model.compile(RMSprop(2e-3), keras.losses.SparseCategoricalCrossentropy(dtype="float64"))
    # Batches of six, on four replicas 2, 2, 2 and 0: of one size, for each size is traced again, on each replica.
    images = np.random.default_rng(8).normal(size=(12, 75, 75, 1))

    def train():
        model.fit(images, y[: len(images)], 6, 2, verbose=0, shuffle=False)  # its history is float32
        return results(model)

    return train


SCENARIOS = (
    everything,
    gradient_accumulation,
    learning_rates_by_part,
    several_steps_an_execution,
    compiled_by_xla,
    loss_scaling,
    sums,
    weighted_means,
    dictionaries,
    subclassed,
    agreeing_draws,
    saturated_outputs,
    gradients_in_float16,
    one_number,
    sums_of_two_outputs,
    few_examples_first,
    frozen,
    idle_replicas,
    idle_replicas_and_sums,
    transfer_learning,
    polynet,
)


def strategy_of(name: str, replicas: int):
    if name == "mirrored":
        devices = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
        return tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def main() -> None:
    model_class = {"keras": keras.Model, "ours": DistributedModel, "plain": keras.Model}[sys.argv[1]]
    strategy = strategy_of(sys.argv[2], int(sys.argv[3]))
    found = {}
    if sys.argv[1] == "plain":
        with strategy.scope():
            PolyNet(weights=None, structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.05, input_shape=(75, 75, 3))
    for scenario in SCENARIOS:
        if sys.argv[5:] and scenario.__name__ not in sys.argv[5:]:
            continue
        with strategy.scope():
            train = scenario(model_class, *data())
        found[scenario.__name__] = train()
    out = Path(sys.argv[4])
    if out.is_dir():
        out /= f"{worker_index(strategy)}.json"
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    # As in the process of the tests: an iterator that is tuned may wait a minute for its end.
    tf.data.Dataset._apply_debug_options = untuned
    main()
