"""One training step and one inference of G5 with our BatchNormalization, beside Keras's own layer.

    python benchmarks/batch_normalization.py --image_size 235 --batch_size 4 --rounds 7 --json result.json

Two processes hold the same network, one with each layer, and take turns: a round times one inference and one
training step in each. Printed are the medians, the median of the rounds' ratios, graph nodes, seconds to trace and
run the first time, and each process's peak resident memory.
"""

import argparse
import gc
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import time

LAYERS = ("keras", "polynet_keras")


def worker(connection, layer: str, structure: str, image_size: int, batch_size: int, threads: int) -> None:
    """Holds one network; answers each command with a measurement."""
    import tensorflow as tf

    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    import keras

    from polynet_keras import PolyNet
    from polynet_keras.layers import BatchNormalization

    keras.utils.set_random_seed(0)
    model = PolyNet(weights=None, input_shape=(image_size, image_size, 3), structure=structure)
    normalization = keras.layers.BatchNormalization if layer == "keras" else BatchNormalization

    def with_layer(ours):
        cls = normalization if isinstance(ours, BatchNormalization) else type(ours)
        return cls.from_config(ours.get_config())

    # Cloned on both sides, so that both have held the same things in memory by now.
    weights = model.get_weights()
    model = keras.models.clone_model(model, clone_function=with_layer)
    model.set_weights(weights)
    del weights
    gc.collect()
    optimizer = keras.optimizers.RMSprop(1e-4)
    optimizer.build(model.trainable_variables)
    images = tf.random.stateless_normal((batch_size, image_size, image_size, 3), (0, 1))
    labels = tf.range(batch_size, dtype=tf.int64)

    @tf.function
    def inference():
        return model(images, training=False)

    @tf.function
    def training():
        with tf.GradientTape() as tape:
            probabilities = model(images, training=True)
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, probabilities))
        optimizer.apply(tape.gradient(loss, [v.value for v in model.trainable_variables]))
        return loss

    functions = {"inference": inference, "training": training}
    while (command := connection.recv()) != "stop":
        function = functions[command]
        start = time.perf_counter()
        value = float(tf.reduce_sum(function()))
        seconds = time.perf_counter() - start
        connection.send({"seconds": seconds, "value": value})
        if connection.recv() == "nodes":
            graph = function.get_concrete_function().graph.as_graph_def()
            connection.send(len(graph.node) + sum(len(f.node_def) for f in graph.library.function))
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    connection.send({"peak_gib": usage / 2**20, "versions": {"tensorflow": tf.__version__, "keras": keras.__version__}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structure", default="polynet-g5")
    parser.add_argument("--image_size", type=int, default=235)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="TensorFlow's threads; 0 leaves it to TensorFlow")
    parser.add_argument("--json", help="file for the numbers")
    arguments = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    pipes = {}
    for layer in LAYERS:
        ours, theirs = context.Pipe()
        settings = (arguments.structure, arguments.image_size, arguments.batch_size, arguments.threads)
        context.Process(target=worker, args=(theirs, layer, *settings), daemon=True).start()
        theirs.close()  # so that a worker that dies is an EOFError here, not a wait without end
        pipes[layer] = ours

    def measure(layer: str, phase: str, then: str = "next"):
        pipes[layer].send(phase)
        answer = pipes[layer].recv()
        pipes[layer].send(then)
        return {**answer, "nodes": pipes[layer].recv()} if then == "nodes" else answer

    results: dict = {}
    for phase in ("inference", "training"):
        results[phase] = {}
        for layer in LAYERS:
            first = measure(layer, phase, "nodes")
            results[phase][layer] = {"first_s": first["seconds"], "nodes": first["nodes"], "step_s": []}
            print(f"{phase}, {layer}: first call {first['seconds']:.1f} s", file=sys.stderr)
        for number in range(arguments.rounds):
            for layer in LAYERS if number % 2 else reversed(LAYERS):
                results[phase][layer]["step_s"].append(measure(layer, phase)["seconds"])
    for layer in LAYERS:
        pipes[layer].send("stop")
        results[layer] = pipes[layer].recv()

    print(
        f"{arguments.structure}, {arguments.image_size} px, batch {arguments.batch_size}, {arguments.rounds} rounds, "
        f"{multiprocessing.cpu_count()} cores {platform.machine()}, Python {platform.python_version()}, "
        f"{results['keras']['versions']}"
    )
    print(f"{'':<22}{'keras':>12}{'polynet_keras':>16}{'ratio':>8}")
    for phase in ("inference", "training"):
        theirs, ours = (results[phase][layer] for layer in LAYERS)
        ratio = statistics.median(b / a for a, b in zip(theirs["step_s"], ours["step_s"], strict=True))
        medians = [statistics.median(side["step_s"]) for side in (theirs, ours)]
        results[phase]["ratio"] = ratio
        print(f"{phase + ', s a step':<22}{medians[0]:>12.3f}{medians[1]:>16.3f}{ratio:>8.2f}")
        for name, key, unit in (("first call, s", "first_s", ".1f"), ("graph nodes", "nodes", ",")):
            a, b = theirs[key], ours[key]
            print(f"  {name:<20}{a:>12{unit}}{b:>16{unit}}{b / a:>8.2f}")
    a, b = (results[layer]["peak_gib"] for layer in LAYERS)
    print(f"{'peak memory, GiB':<22}{a:>12.2f}{b:>16.2f}{b / a:>8.2f}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"arguments": vars(arguments), **results}, file, indent=2)


if __name__ == "__main__":
    main()
