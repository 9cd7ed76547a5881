"""A program for tests: a batch normalization trained on replicas, which need a process of their own.

    python -m tests.layers.replicas CASES.json RESULTS.npz

TensorFlow shares the processor out to several devices only before it starts, and a process has one strategy with
collectives: all cases of a file have as many parts. For each it is the step of a layer on the parts of a batch; what a
case says is in `test_synchronized_moments.py`. Results are named `case/value`.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from polynet_keras.layers import BatchNormalization


def batch(case: dict) -> tuple[np.ndarray, np.ndarray]:
    """The inputs and the loss's weights of the whole batch, float64."""
    rng = np.random.default_rng(case["seed"])
    shape = (sum(case["parts"]), *case["shape"])
    return rng.normal(case["mean"], rng.uniform(0.5, 2.0, shape[-1]), shape), rng.normal(size=shape)


def parameters(case: dict) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(case["seed"] + 1000)
    channels = case["shape"][case["axis"] - (case["axis"] > 0)]
    values = {name: rng.uniform(0.5, 1.5, channels) for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    absent = {"gamma": not case["scale"], "beta": not case["center"]}
    return {name: value for name, value in values.items() if not absent.get(name)}


def built(case: dict, cls: type, **arguments) -> keras.layers.BatchNormalization:
    layer = cls(
        axis=case["axis"],
        momentum=0.9,
        epsilon=1e-3,
        center=case["center"],
        scale=case["scale"],
        dtype=case["dtype"],
        **arguments,
    )
    layer.build((None, *case["shape"]))
    layer.set_weights(list(parameters(case).values()))
    return layer


def run(case: dict, strategy: tf.distribute.Strategy) -> dict[str, np.ndarray]:
    with strategy.scope():
        layer = built(case, BatchNormalization if case["ours"] else keras.layers.BatchNormalization, synchronized=True)
    layer.trainable = case["trainable"]
    x, weights = (tf.constant(value, layer.compute_dtype) for value in batch(case))
    bounds = np.cumsum([0, *case["parts"]])

    def apply(x):
        if case["remat"]:
            return keras.remat(lambda x: layer(x, training=case["training"]))(x)
        return layer(x, training=case["training"])

    def on_replica(x, weights, bounds):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        if case["static"]:
            replica = int(tf.get_static_value(replica))
        part = slice(bounds[replica], bounds[replica + 1])
        x = x[part]
        with tf.GradientTape() as tape, keras.StatelessScope() as scope:
            tape.watch(x)
            y = apply(x)
            loss = tf.reduce_sum(y * weights[part])
        moving = [scope.get_current_value(v) for v in (layer.moving_mean, layer.moving_variance)]
        moving = [
            tf.identity(v.value) if new is None else new for v, new in zip(layer.weights[-2:], moving, strict=True)
        ]
        if not case["backward"]:
            return {"y": y, "moving_mean": moving[0], "moving_variance": moving[1]}
        names = [v.name for v in layer.trainable_variables]
        dx, *gradients = tape.gradient(loss, [x, *layer.trainable_variables])
        return {"y": y, "dx": dx, "moving_mean": moving[0], "moving_variance": moving[1]} | dict(
            zip(names, gradients, strict=True)
        )

    if case["static"]:  # each replica knows the size of its part when it is traced

        def step(x, weights):
            return strategy.run(on_replica, args=(x, weights, bounds.tolist()))

        arguments = (x, weights)
    else:

        def step(x, weights, bounds):
            return strategy.run(on_replica, args=(x, weights, bounds))

        arguments = (x, weights, tf.constant(bounds))
    collectives = 0
    if not case["eager"]:
        open_shapes = [tf.TensorSpec((None, *case["shape"]), x.dtype)] * 2 + [tf.TensorSpec(bounds.shape, tf.int64)]
        step = tf.function(step, autograph=False, input_signature=None if case["static"] else open_shapes)
        graph = step.get_concrete_function(*arguments).graph
        nodes = [node for f in graph.as_graph_def().library.function for node in f.node_def]
        nodes += graph.as_graph_def().node
        collectives = sum(node.op.startswith("Collective") for node in nodes)
    found = step(*arguments)
    results = {"collectives": np.asarray(collectives / len(case["parts"]))}
    for name, value in found.items():
        local = [np.asarray(tf.cast(one, "float64")) for one in strategy.experimental_local_results(value)]
        results[name] = np.concatenate(local) if name in ("y", "dx") else np.stack(local)
    return results


def main(cases: str, results: str) -> None:
    with open(cases) as file:
        given = json.load(file)
    cpu = tf.config.list_physical_devices("CPU")[0]
    (count,) = {len(case["parts"]) for case in given.values()}
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(count)])
    found = {name: run(case, strategy) for name, case in given.items()}
    np.savez(results, **{f"{name}/{key}": value for name, values in found.items() for key, value in values.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
