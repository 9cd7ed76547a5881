"""Synchronized batch normalization on 2 and 4 replicas, against one worker that has the whole batch.

The replicas of the slow tests are TensorFlow's, in processes of their own. Those of the fast tests are threads that sum
by themselves: the arithmetic is tested, and what is sent, but not how.
"""

import json
import subprocess
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has strategies")
slow = pytest.mark.slow

EPSILON = 1e-3

PLAIN = {
    "parts": [4, 4],  # examples of each replica
    "shape": [3, 4, 5],
    "axis": -1,
    "dtype": "float32",
    "center": True,
    "scale": True,
    "seed": 0,
    "mean": 0.7,  # of the inputs, whose standard deviation is 0.5 to 2
    "ours": True,  # or Keras's layer
    "training": True,
    "trainable": True,
    "backward": True,
    "static": False,  # whether the sizes of the parts are known when tracing
    "eager": False,
    "remat": False,
}

CASES = {
    "even": {},
    "even again": {"seed": 1},
    "even with static shapes": {"seed": 2, "static": True},
    "even on four": {"parts": [2, 2, 2, 2], "seed": 3},
    "uneven": {"parts": [5, 2], "seed": 4},
    "uneven with static shapes": {"parts": [1, 7], "seed": 5, "static": True},
    "uneven on four": {"parts": [1, 3, 2, 4], "seed": 6},
    "last empty": {"parts": [4, 0], "seed": 7},
    "first empty": {"parts": [0, 3], "seed": 8},
    "empty with static shapes": {"parts": [0, 3], "seed": 8, "static": True},
    "two of four empty": {"parts": [3, 0, 2, 0], "seed": 9},
    "one example": {"parts": [1, 0], "seed": 10},
    "matrix": {"shape": [6], "parts": [5, 3], "seed": 11},
    "matrix with an empty part": {"shape": [6], "parts": [7, 0], "seed": 12},
    "one row a replica": {"shape": [6], "parts": [1, 1, 1, 1], "seed": 13},
    "sequence": {"shape": [7, 3], "parts": [2, 3], "seed": 14},
    "channels first": {"axis": 1, "parts": [2, 3], "seed": 15},
    "middle axis": {"axis": -2, "parts": [2, 3], "seed": 16},
    "without beta": {"center": False, "parts": [2, 3], "seed": 17},
    "without gamma": {"scale": False, "parts": [2, 3], "seed": 18},
    "without both": {"scale": False, "center": False, "parts": [2, 3], "seed": 19},
    "float64": {"dtype": "float64", "parts": [2, 3, 1, 0], "seed": 20},
    "float16": {"dtype": "mixed_float16", "parts": [5, 3], "seed": 21},
    "float16 far from zero": {"dtype": "mixed_float16", "parts": [5, 3], "seed": 22, "mean": 1e3},
    "bfloat16": {"dtype": "mixed_bfloat16", "parts": [5, 0, 3, 1], "seed": 23},
    "far from zero": {"parts": [5, 3], "seed": 24, "mean": 1e3},
    "eager": {"parts": [5, 3], "seed": 25, "eager": True},
    "rematerialized": {"parts": [5, 3], "seed": 26, "remat": True},
}
"""Those that one worker has to reproduce."""

OTHERS = {
    "Keras's": {"ours": False},
    "Keras's far from zero": CASES["far from zero"] | {"ours": False},
    "forward": {"backward": False},
    "Keras's forward": {"backward": False, "ours": False},
    "inference": {"training": False},
    "frozen": {"trainable": False},
    "all empty": {"parts": [0, 0]},
}

CASES = {name: PLAIN | case for name, case in CASES.items()}
OTHERS = {name: PLAIN | case for name, case in OTHERS.items()}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Of each case: values by name; of all replicas in one array (`y`, `dx`), or one row a replica."""
    folder = tmp_path_factory.mktemp("replicas")
    processes, results = {}, {}
    for count in (4, 2):
        cases = {name: case for name, case in (CASES | OTHERS).items() if len(case["parts"]) == count}
        (folder / f"{count}.json").write_text(json.dumps(cases))
        command = [sys.executable, "-m", "tests.layers.replicas", folder / f"{count}.json", folder / f"{count}.npz"]
        processes[count] = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        for count, process in processes.items():
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors[-3000:]
            with np.load(folder / f"{count}.npz") as arrays:
                for name in arrays.files:
                    case, key = name.split("/")
                    results.setdefault(case, {})[key] = arrays[name]
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return results


def in_float64(case):
    """One worker's step on the whole batch, in float64 NumPy from the paper's formulas."""
    from tests.layers.replicas import batch, parameters

    x, dy = batch(case)
    if case["dtype"].startswith("mixed"):  # what the layer is given
        x, dy = (np.asarray(keras.ops.cast(v, case["dtype"].removeprefix("mixed_")), "float64") for v in (x, dy))
    elif case["dtype"] == "float32":
        x, dy = (v.astype("float32").astype("float64") for v in (x, dy))
    values = {"gamma": 1.0, "beta": 0.0} | parameters(case)
    axes = tuple(axis for axis in range(x.ndim) if axis != case["axis"] % x.ndim)
    gamma, beta = (
        np.expand_dims(values[name] * np.ones(x.shape[case["axis"]]), axes) if axes else values[name]
        for name in ("gamma", "beta")
    )
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    normalized = (x - mean) / np.sqrt(variance + EPSILON)
    dx = dy - dy.mean(axes, keepdims=True) - normalized * (dy * normalized).mean(axes, keepdims=True)
    result = {
        "y": gamma * normalized + beta,
        "dx": gamma / np.sqrt(variance + EPSILON) * dx,
        "gamma": (dy * normalized).sum(axes),
        "beta": dy.sum(axes),
        "moving_mean": 0.9 * values["moving_mean"] + 0.1 * mean.ravel(),
        "moving_variance": 0.9 * values["moving_variance"] + 0.1 * variance.ravel(),
    }
    return {name: value for name, value in result.items() if name not in {"gamma", "beta"} - parameters(case).keys()}


def of_keras(case):
    """One worker's step on the whole batch, by Keras's layer."""
    import tensorflow as tf

    from tests.layers.replicas import batch, built

    layer = built(case, keras.layers.BatchNormalization)
    x, dy = (tf.constant(value, layer.compute_dtype) for value in batch(case))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(y * dy)
    dx, *gradients = tape.gradient(loss, [x, *layer.trainable_variables])
    result = {"y": y, "dx": dx, "moving_mean": layer.moving_mean, "moving_variance": layer.moving_variance}
    result |= dict(zip([v.name for v in layer.trainable_variables], gradients, strict=True))
    return {name: np.asarray(tf.cast(value, "float64")) for name, value in result.items()}


def assert_equal(found, expected, case):
    """What all replicas hold together is what one worker does."""
    # Of float16 the results are rounded to 11 bits, of bfloat16 to 8. In float32 a mean of 1000 is off by up to 6e-5.
    rounding = {"float32": 2.0**-20, "float64": 2.0**-48, "mixed_float16": 2.0**-9, "mixed_bfloat16": 2.0**-6}
    tolerance = max(rounding[case["dtype"]], 2e-4 if case["mean"] > 100 else 0.0)
    assert {"collectives", *expected} == found.keys()
    for name, value in expected.items():
        ours = found[name]
        if name in ("gamma", "beta"):  # each replica has its share of the gradient
            ours = ours.sum(axis=0)
        elif name.startswith("moving"):
            np.testing.assert_array_equal(ours, ours[:1].repeat(len(ours), axis=0))
            ours = ours[0]
        atol = tolerance * max(1.0, np.abs(value).max())
        np.testing.assert_allclose(ours, value, rtol=0, atol=atol, err_msg=name)


@slow
@pytest.mark.parametrize("reference", [in_float64, of_keras])
@pytest.mark.parametrize("name", CASES)
def test_replicas_compute_what_one_worker_does(found, name, reference):
    assert_equal(found[name], reference(CASES[name]), CASES[name])


@slow
def test_a_difference_of_squares_would_not_do(found):
    """Keras's synchronized variance far from zero is wrong in the second digit: the test above can fail."""
    case = OTHERS["Keras's far from zero"]
    expected = in_float64(case)
    theirs = np.abs(found["Keras's far from zero"]["y"] - expected["y"]).max()
    assert theirs > 10 * np.abs(found["far from zero"]["y"] - expected["y"]).max()


@slow
def test_collectives(found):
    counts = {name: float(values["collectives"]) for name, values in found.items()}
    assert counts["forward"] == 1
    assert {counts[name] for name in CASES} == {0, 2, 3}
    assert {name for name in CASES if counts[name] == 0} == {"eager"}  # no graph to count in
    assert {name for name in CASES if counts[name] == 3} == {"rematerialized"}  # forward twice
    assert (counts["Keras's forward"], counts["Keras's"]) == (3, 6)
    assert {counts["inference"], counts["frozen"]} == {0}


@slow
def test_inference_and_frozen_layers_use_the_moving_statistics(found):
    from tests.layers.replicas import batch, parameters

    for name in ("inference", "frozen"):
        case = OTHERS[name]
        x, values = batch(case)[0], parameters(case)
        expected = (x - values["moving_mean"]) / np.sqrt(values["moving_variance"] + EPSILON)
        np.testing.assert_allclose(found[name]["y"], expected * values["gamma"] + values["beta"], atol=1e-5)
        for key in ("moving_mean", "moving_variance"):
            np.testing.assert_allclose(found[name][key], np.stack([values[key]] * 2), rtol=1e-6)


class ThreadsAsReplicas:
    """`tf.distribute`'s context of a replica, in threads that wait for each other."""

    def __init__(self, count, monkeypatch):
        import tensorflow as tf

        self.num_replicas_in_sync = count
        self.sent = []  # what each collective summed, one replica's shape and dtype
        self._thread = threading.local()
        self._values = [None] * count
        self._barrier = threading.Barrier(count, timeout=30)
        monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: self)

    @property
    def replica_id_in_sync_group(self):
        return self._thread.number

    def all_reduce(self, operation, value):
        import tensorflow as tf

        assert operation == tf.distribute.ReduceOp.SUM
        self._values[self._thread.number] = value
        if self._barrier.wait() == 0:
            self.sent.append((tuple(value.shape), value.dtype.name))
        total = tf.add_n(self._values)
        self._barrier.wait()
        return total

    def run(self, function):
        """What `function(replica)` returns, of each replica."""
        results = [None] * self.num_replicas_in_sync

        def work(number):
            self._thread.number = number
            try:
                results[number] = function(number)
            except BaseException:
                self._barrier.abort()
                raise

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(results))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert None not in results  # the traceback of the thread that failed is printed
        return results


def step_of_threads(case, monkeypatch, idle=()):
    """As `replicas.run`, of the parts that are not idle; and the context."""
    import tensorflow as tf

    from polynet_keras.layers import BatchNormalization
    from polynet_keras.layers.synchronized_moments import idle_part
    from tests.layers.replicas import batch, built

    layer = built(case, BatchNormalization, synchronized=True)
    x, weights = (tf.constant(value, layer.compute_dtype) for value in batch(case))
    bounds = np.cumsum([0, *case["parts"]])
    context = ThreadsAsReplicas(len(case["parts"]), monkeypatch)

    def on_replica(replica):
        part = slice(bounds[replica], bounds[replica + 1])
        with idle_part(tf.constant(1) if replica in idle else None), tf.GradientTape() as tape:
            tape.watch(x_part := x[part])
            with keras.StatelessScope() as scope:
                y = layer(x_part, training=True)
            loss = tf.reduce_sum(y * weights[part])
        dx, *gradients = tape.gradient(loss, [x_part, *layer.trainable_variables])
        found = {"y": y, "dx": dx} | {v.name: g for v, g in zip(layer.trainable_variables, gradients, strict=True)}
        for variable in (layer.moving_mean, layer.moving_variance):
            found[variable.name] = scope.get_current_value(variable)
        return {name: np.asarray(tf.cast(value, "float64")) for name, value in found.items()}

    of_each = context.run(on_replica)
    results = {}
    for name in of_each[0]:
        if name in ("y", "dx"):
            results[name] = np.concatenate([one[name] for n, one in enumerate(of_each) if n not in idle])
        else:
            results[name] = np.stack([one[name] for one in of_each])
    return results | {"collectives": len(context.sent)}, of_each, context


FAST = [name for name, case in CASES.items() if not (case["remat"] or case["static"])]


@pytest.mark.parametrize("name", FAST)
def test_the_arithmetic_is_that_of_one_worker(name, monkeypatch):
    case = CASES[name]
    found, _, context = step_of_threads(case, monkeypatch)
    assert_equal(found, in_float64(case), case)
    channels = case["shape"][case["axis"] - (case["axis"] > 0)]
    dtype = "float64" if case["dtype"] == "float64" else "float32"
    forward, backward = (len(case["parts"]), 2 * channels + 1), (2 * channels,)
    assert context.sent == [(forward, dtype), (backward, dtype)]


@pytest.mark.parametrize("idle", [0, 1, 2])
def test_an_idle_part_counts_for_nothing(idle, monkeypatch):
    """It computes along, with whatever it holds, and its own gradients are none."""
    from tests.layers import replicas

    case = PLAIN | {"parts": [4, 3, 2], "seed": 30}
    expected = PLAIN | {"parts": [sum(n for i, n in enumerate(case["parts"]) if i != idle)]}
    x, weights = replicas.batch(case)
    parameters = replicas.parameters(case)
    bounds = np.cumsum([0, *case["parts"]])
    rows = np.r_[tuple(slice(bounds[i], bounds[i + 1]) for i in range(3) if i != idle)]
    with_garbage = x.copy()
    with_garbage[bounds[idle] : bounds[idle + 1]] = 1e20
    monkeypatch.setattr(replicas, "parameters", lambda case: parameters)
    monkeypatch.setattr(replicas, "batch", lambda case: (with_garbage, weights))
    found, of_each, _ = step_of_threads(case, monkeypatch, idle=(idle,))
    monkeypatch.setattr(replicas, "batch", lambda case: (x[rows], weights[rows]))
    assert_equal(found, in_float64(expected), expected)
    for name in ("dx", "gamma", "beta"):
        np.testing.assert_array_equal(of_each[idle][name], 0)


def test_a_part_is_idle_only_inside():
    import tensorflow as tf

    from polynet_keras.layers import synchronized_moments

    def fails():
        with synchronized_moments.idle_part(tf.constant(1)):
            assert int(synchronized_moments._replica.idle) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert synchronized_moments._replica.idle is None


def test_no_part_has_an_example(monkeypatch):
    from tests.layers.replicas import parameters

    case = PLAIN | {"parts": [0, 0, 0]}
    found, _, _ = step_of_threads(case, monkeypatch)
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(found[name], np.stack([parameters(case)[name]] * 3), rtol=1e-6)
    for name in ("gamma", "beta"):
        np.testing.assert_array_equal(found[name], 0)


def test_moments_and_what_carries_no_gradient(monkeypatch):
    """What `normalize` returns beside the result, on two replicas with 3 and 1 rows of two values."""
    import tensorflow as tf

    from polynet_keras.layers.synchronized_moments import normalize, replica_count

    x = np.array([[1.0, 10.0], [3.0, 10.0], [5.0, 40.0], [7.0, 20.0]], "float32")
    context = ThreadsAsReplicas(2, monkeypatch)
    assert replica_count() == 2

    def on_replica(replica):
        part = tf.constant(x[:3] if replica == 0 else x[3:])
        with tf.GradientTape() as tape:
            tape.watch(part)
            _, *moments = normalize(part, tf.ones(2), tf.zeros(2), 1, 1e-3)
        assert tape.gradient(moments, part) is None
        return [np.asarray(moment) for moment in moments]

    for mean, variance, count in context.run(on_replica):
        np.testing.assert_allclose(mean, [4.0, 20.0])
        np.testing.assert_allclose(variance, [5.0, 150.0])  # biased: (9 + 1 + 1 + 9) / 4, (100 + 100 + 400) / 4
        assert count == 4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("of_parameters", ["float16", "float32", "float64"])
def test_results_have_the_dtype_of_the_input(dtype, of_parameters):
    import tensorflow as tf

    from polynet_keras.layers.synchronized_moments import normalize

    x = tf.constant([[1.0], [3.0]], dtype)
    gamma, beta = tf.constant([2.0], of_parameters), tf.constant([5.0], of_parameters)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, *moments = normalize(x, gamma, beta, 1, 0.0)
        loss = tf.reduce_sum(y * tf.constant([[1.0], [0.0]], dtype))
    assert (y.dtype, tape.gradient(loss, x).dtype) == (x.dtype, x.dtype)
    np.testing.assert_allclose(tf.cast(y, "float64"), [[3.0], [7.0]], rtol=1e-2)
    assert {moment.dtype for moment in moments} == {tf.float64 if dtype == "float64" else tf.float32}


def test_outside_of_a_step_there_is_one_replica():
    import tensorflow as tf

    from polynet_keras.layers.synchronized_moments import normalize, replica_count

    assert replica_count() == 1
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():  # not in a replica
        assert replica_count() == 1
        with tf.GradientTape() as tape:
            tape.watch(x := tf.constant([[1.0], [3.0]]))
            y, mean, variance, count = normalize(x, tf.ones(1), tf.zeros(1), 1, 0.0)
        dx = tape.gradient(y, x)
    np.testing.assert_allclose(y, [[-1.0], [1.0]], rtol=1e-6)
    np.testing.assert_allclose(dx, [[0.0], [0.0]], atol=1e-6)  # the sum of what is normalized stays 0
    assert (float(mean[0]), float(variance[0]), float(count)) == (2.0, 1.0, 2.0)


@pytest.mark.parametrize("case", [{}, {"shape": [6]}])  # with a fused kernel, and without
def test_one_replica_has_nobody_to_send_to(case, monkeypatch):
    case = PLAIN | {"parts": [8]} | case
    found, _, context = step_of_threads(case, monkeypatch)
    assert_equal(found, in_float64(case), case)
    assert context.sent == []


@pytest.mark.parametrize("case", [{}, {"shape": [6]}, {"axis": 1, "mean": 1e3}])
def test_one_replica_takes_no_collective(case):
    import tensorflow as tf

    from tests.layers.replicas import run

    case = PLAIN | {"parts": [8]} | case
    results = run(case, tf.distribute.MirroredStrategy(["CPU:0"]))
    assert results["collectives"] == 0
    assert_equal(results, in_float64(case), case)


@slow
def test_without_any_example_everything_stays(found):
    from tests.layers.replicas import parameters

    values = parameters(OTHERS["all empty"])
    for key in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(found["all empty"][key], np.stack([values[key]] * 2), rtol=1e-6)
    for key in ("gamma", "beta"):
        np.testing.assert_array_equal(found["all empty"][key], 0)
