"""JPEG files to random crops of 331 px: this package's input pipeline beside Pillow and NumPy, on one core and on two.

    python benchmarks/input.py --photographs FOLDER --rounds 5 --json result.json

Both sides read files, decode, cut the same boxes, resize them bilinearly to 331 px and give normalized float32 batches
of 32. Pillow filters whatever shrinks, the pipeline only random-resized crops that shrink to less than half. On two
cores, Pillow's side is two processes, and the pipeline's is one. The sides take turns, each run in a process that is
tied to its cores, and what is printed are the medians of images a second and of the rounds' ratios.

Two sets of files: ImageNet-like ones of 500 × 375 px, cut from scikit-learn's two photographs, JPEG quality 90; and
with --photographs all JPEG files of a folder, such as `foolbox/data` of foolbox's wheel (20 photographs).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZE, RESIZE, BATCH = 331, 378, 32
MEAN, STD = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))


def imagenet_like(folder, count=200):
    """Files of about ImageNet's usual size and weight: 500 × 375 px, 100 kB."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    for i in range(count):
        photograph = photographs[i % 2]
        height, width = (int(side * rng.uniform(0.6, 1)) for side in photograph.shape[:2])
        top, left = (
            int(rng.integers(0, side - cut + 1))
            for side, cut in zip(photograph.shape[:2], (height, width), strict=True)
        )
        part = Image.fromarray(photograph[top : top + height, left : left + width]).resize((500, 375))
        part.save(folder / f"{i:03d}.jpg", quality=90)


def boxes_of(files, count, crop):
    """The box of each of `count` crops: (file, top, left, height, width), as this package draws them."""
    import tensorflow as tf
    from PIL import Image

    from polynet_keras.data.distortion import example_seed, random_resized_box

    boxes = []
    for i in range(count):
        file = files[i % len(files)]
        with Image.open(file) as image:
            width, height = image.size
        seed = example_seed(0, tf.constant(0, tf.int64), tf.constant(i, tf.int64))
        if crop == "random_resized":
            boxes.append((str(file), *map(int, random_resized_box(height, width, seed))))
        else:
            top, left = np.random.default_rng(i).integers(0, RESIZE - SIZE + 1, 2)
            boxes.append((str(file), int(top), int(left), SIZE, SIZE))
    return boxes


def pillow_side(boxes, crop):
    import io

    from PIL import Image

    def one(file, top, left, height, width):
        with Image.open(io.BytesIO(Path(file).read_bytes())) as image:
            image = image.convert("RGB")
            if crop == "random_resized":
                image = image.crop((left, top, left + width, top + height))
                image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            else:
                image = image.resize((RESIZE, RESIZE), Image.Resampling.BILINEAR)
                image = image.crop((left, top, left + SIZE, top + SIZE))
            return (np.asarray(image, "float32") / 255 - MEAN) / STD

    def batches():
        for start in range(0, len(boxes), BATCH):
            yield np.stack([one(*box) for box in boxes[start : start + BATCH]])

    return batches()


def pipeline_side(boxes, crop):
    import tensorflow as tf

    from polynet_keras.data.augmentation import Augmentation
    from polynet_keras.data.examples import Examples
    from polynet_keras.data.pipeline import training_batches
    from polynet_keras.data.protocol import Preprocessing

    files = tf.constant([box[0] for box in boxes])
    examples = Examples(
        "files", ("a", "b"), 3, len(boxes), lambda i: (tf.io.read_file(files[i]), tf.constant(0, tf.int64)), str, ""
    )
    dataset = training_batches(examples, Preprocessing(SIZE, RESIZE), BATCH, 0, Augmentation(crop)).dataset
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    return dataset.with_options(options)


def child(arguments):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-arguments.cores :])
    boxes = json.loads(Path(arguments.boxes).read_text())
    if arguments.side == "pillow":
        if arguments.cores == 2 and (pid := os.fork()) == 0:
            pass  # the second process does the same work beside the first
        batches = iter(pillow_side(boxes * 1000, arguments.crop))
    else:
        batches = iter(pipeline_side(boxes, arguments.crop))
    for _ in range(3):
        next(batches)
    start, images = time.perf_counter(), 0
    while time.perf_counter() < start + arguments.seconds:
        images += len(next(batches) if arguments.side == "pillow" else next(batches)[0])
    rate = images / (time.perf_counter() - start)
    if arguments.side == "pillow" and arguments.cores == 2:
        Path(arguments.boxes + (".child" if pid == 0 else ".parent")).write_text(str(rate))
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        rate += float(Path(arguments.boxes + ".child").read_text())
    print(json.dumps(rate))


def run(side, cores, crop, boxes, seconds):
    command = [sys.executable, __file__, "--side", side, "--cores", str(cores), "--crop", crop]
    command += ["--boxes", boxes, "--seconds", str(seconds)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--json", type=Path)
    for name in ("--side", "--cores", "--crop", "--boxes"):  # of a child
        parser.add_argument(name, type=int if name == "--cores" else str, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        child(arguments)
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "imagenet").mkdir()
        imagenet_like(Path(folder, "imagenet"))
        sets = {"500 x 375 px": sorted(Path(folder, "imagenet").glob("*.jpg"))}
        if arguments.photographs:
            sets[arguments.photographs.name] = sorted(arguments.photographs.rglob("*.jpg"))
        for name, files in sets.items():
            for crop in ("random_resized", "random"):
                path = Path(folder, f"{crop}.json")
                path.write_text(json.dumps(boxes_of(files, 320, crop)))
                rates = {(side, cores): [] for side in ("pillow", "pipeline") for cores in (1, 2)}
                for _ in range(arguments.rounds):
                    for (side, cores), values in rates.items():
                        values.append(run(side, cores, crop, str(path), arguments.seconds))
                results.append(summary(name, crop, rates))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": platform.processor(), "results": results}, indent=1))


def summary(name, crop, rates):
    def ratio(above, below):
        return statistics.median(a / b for a, b in zip(rates[above], rates[below], strict=True))

    medians = {f"{side}, {cores} core(s)": statistics.median(values) for (side, cores), values in rates.items()}
    result = {
        "files": name,
        "crop": crop,
        "images/s": medians,
        "pipeline / Pillow, one core": ratio(("pipeline", 1), ("pillow", 1)),
        "pipeline, two cores / one": ratio(("pipeline", 2), ("pipeline", 1)),
        "Pillow, two cores / one": ratio(("pillow", 2), ("pillow", 1)),
        "rates": {f"{side} {cores}": values for (side, cores), values in rates.items()},
    }
    print(f"{name}, {crop}:", {key: round(value, 1) for key, value in medians.items()})
    print("   ", {key: round(value, 2) for key, value in result.items() if isinstance(value, float)}, flush=True)
    return result


if __name__ == "__main__":
    main()
