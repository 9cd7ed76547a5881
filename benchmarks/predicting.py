"""Photographs a second of `predict`, beside `evaluate` on the same images and beside one image after the other.

    python benchmarks/predicting.py --count 1000 --rounds 3 --json result.json

The network is small, so that reading, decoding and resizing are most of the work: `--structure` and `--width` take
others. The photographs are ImageNet-like ones of 500 × 375 px, as those of `benchmarks/input.py`. The sides take turns
in one process; printed are the medians of images a second and of the rounds' ratios, first to the others.

One after the other is what `predict` did before it had the input pipeline: Pillow, Keras's resize, batches of 32.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

BATCH = 32


def one_after_the_other(model, files):
    from polynet_keras.data.image_files import read_image

    for start in range(0, len(files), BATCH):
        images = [read_image(file, 3) for file in files[start : start + BATCH]]
        model.logits(np.stack([model.preprocessing(image) for image in images]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="photographs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image_size", type=int, default=331)
    parser.add_argument("--structure", default="1 x [ir] | 1 x [ir] | 1 x [ir]")
    parser.add_argument("--width", type=float, default=0.1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    import keras
    from input import imagenet_like

    from polynet_keras import PolyNet
    from polynet_keras.data import Preprocessing, open_split
    from polynet_keras.evaluation import TrainedModel, evaluate, predict

    size = arguments.image_size
    keras.utils.set_random_seed(0)
    network = PolyNet(
        weights=None,
        structure=arguments.structure,
        width=arguments.width,
        input_shape=(size, size, 3),
        classes=2,
    )
    protocol = Preprocessing(size, round(size * 378 / 331), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    model = TrainedModel("small", network, protocol, ("a", "b"))
    with tempfile.TemporaryDirectory() as folder:
        for name in model.class_names:
            Path(folder, name).mkdir()
            imagenet_like(Path(folder, name), arguments.count // 2)
        files = sorted(Path(folder).glob("*/*.jpg"))
        sides = {
            "predict": lambda: predict(model, folder),
            "evaluate": lambda: evaluate(model, open_split(folder)),
            "one after the other": lambda: one_after_the_other(model, files),
        }
        seconds = {name: [] for name in sides}
        for name in sides:  # traces, and brings the files into memory
            sides[name]()
        for _ in range(arguments.rounds):
            for name, run in sides.items():
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    result = {
        "images_per_second": {name: len(files) / statistics.median(times) for name, times in seconds.items()},
        "ratio": {
            name: statistics.median(other / own for own, other in zip(seconds["predict"], times, strict=True))
            for name, times in seconds.items()
        },
        "count": len(files),
        "rounds": arguments.rounds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "keras": keras.__version__},
    }
    for name, rate in result["images_per_second"].items():
        print(f"{name:<20} {rate:8.1f} images/s   predict takes 1/{result['ratio'][name]:.2f} of its time")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
