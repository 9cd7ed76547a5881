"""144 crops of a photograph with G5, as `polynet evaluate` scores them, beside 144 single forwards of plain Keras.

    python benchmarks/crops.py --batch_size 36 --rounds 3 --json result.json

Two processes hold a network each and take turns: this package's, which gets the views of scikit-learn's china.jpg in
batches, and the same network with Keras's own BatchNormalization in a plain `keras.Model`, whose `predict_on_batch`
gets the same views one by one. Cutting the views is in both times. Printed are the medians, the median of the rounds'
ratios and each process's peak resident memory.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time

import numpy as np

SIDES = ("plain", "polynet_keras")


def worker(connection, side, structure, image_size, batch_size):
    import keras
    from sklearn.datasets import load_sample_image

    from polynet_keras import PolyNet
    from polynet_keras.data.crops import crop_plan, views
    from polynet_keras.data.protocol import Preprocessing
    from polynet_keras.evaluation.outputs import logits_model
    from polynet_keras.evaluation.scoring import crop_logits
    from polynet_keras.layers import BatchNormalization

    keras.utils.set_random_seed(0)
    model = logits_model(PolyNet(weights=None, input_shape=(image_size, image_size, 3), structure=structure))
    if side == "plain":

        def plain(ours):
            layer = keras.layers.BatchNormalization if isinstance(ours, BatchNormalization) else type(ours)
            return layer.from_config(ours.get_config())

        weights = model.get_weights()
        model = keras.models.clone_model(keras.Model(model.inputs, model.outputs), clone_function=plain)
        model.set_weights(weights)
    photograph = load_sample_image("china.jpg")
    preprocessing = Preprocessing(image_size, round(image_size * 378 / 331))

    def plan():
        return crop_plan(*photograph.shape[:2], preprocessing, 144)

    def one_by_one():
        inputs = preprocessing.normalize(views(photograph, preprocessing, plan()))
        return np.concatenate([model.predict_on_batch(view[np.newaxis]) for view in inputs])

    def batched():
        return crop_logits(model.predict_on_batch, photograph, preprocessing, plan(), batch_size)

    run = one_by_one if side == "plain" else batched
    connection.send("built")
    while connection.recv() != "stop":
        start = time.perf_counter()
        logits = run()
        connection.send((time.perf_counter() - start, logits))
    connection.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structure", default="polynet-g5")
    parser.add_argument("--image_size", type=int, default=331)
    parser.add_argument("--batch_size", type=int, default=36)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="file for the numbers")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    connections = {}
    for side in SIDES:
        connections[side], theirs = context.Pipe()
        parts = (theirs, side, arguments.structure, arguments.image_size, arguments.batch_size)
        context.Process(target=worker, args=parts, daemon=True).start()
        connections[side].recv()
    seconds = {side: [] for side in SIDES}
    for number in range(arguments.rounds + 1):
        found = {}
        for side, connection in connections.items():
            connection.send("run")
            taken, found[side] = connection.recv()
            if number:  # the first traces the network
                seconds[side].append(taken)
        difference = np.abs(found["plain"] - found["polynet_keras"]).max() / np.abs(found["plain"]).max()
        print(f"round {number}: logits differ by {difference:.1e} of the largest", flush=True)
    result = {"batch_size": arguments.batch_size, "seconds": seconds}
    result["median"] = {side: statistics.median(values) for side, values in seconds.items()}
    result["ratio"] = statistics.median(b / a for a, b in zip(seconds["plain"], seconds["polynet_keras"], strict=True))
    result["peak_gib"] = {}
    for side, connection in connections.items():
        connection.send("stop")
        result["peak_gib"][side] = connection.recv()
    print({key: value for key, value in result.items() if key != "seconds"})
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
