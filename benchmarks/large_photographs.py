"""JPEG files of 12 megapixels to batches of 331 px: decoded exactly, at a smaller scale, and shrunk once before.

    python benchmarks/large_photographs.py --rounds 3 --json result.json

The files are scikit-image's photographs, enlarged to 4000 × 3000 px, with the noise of a small sensor: about 3 MB each.
One process, on two cores; the sides take turns. What is printed are the medians of images a second, CPU time for each
image, the medians of the rounds' ratios to the first side, and how far the prepared pixels are from the exact ones.
Beside the pipeline (evaluation's centre crop, then training's random-resized crop): what prepares images for the
service; Pillow with and without its `draft`, and simplejpeg where it is installed, filtered by Pillow to 8 bits; each
of these in two threads. `--only service` measures those whose names begin so, here without TensorFlow.
"""

import argparse
import importlib.util
import io
import json
import platform
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

SIZE, RESIZE, BATCH, COUNT, MAX_SIDE = 331, 378, 8, 64, 600
MEAN, STD = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))


def make_photographs(folder):
    from PIL import Image
    from skimage import data

    rng = np.random.default_rng(0)
    for name in ("astronaut", "chelsea", "coffee", "rocket", "retina", "immunohistochemistry", "hubble_deep_field"):
        photograph = Image.fromarray(getattr(data, name)())
        unit = min(photograph.width // 4, photograph.height // 3)
        photograph = photograph.crop((0, 0, 4 * unit, 3 * unit)).resize((4000, 3000), Image.Resampling.BICUBIC)
        noisy = np.asarray(photograph, "float32") + rng.normal(0, 5, (3000, 4000, 1)).astype("float32")
        Image.fromarray(np.clip(noisy, 0, 255).astype("uint8")).save(folder / f"{name}.jpg", quality=90)


def examples_of(files):
    import tensorflow as tf

    from polynet_keras.data.examples import Examples

    table = tf.constant([str(files[i % len(files)]) for i in range(COUNT)])
    return Examples(
        "files", ("a", "b"), 3, COUNT, lambda i: (tf.io.read_file(table[i]), tf.constant(0, tf.int64)), str, ""
    )


def pipeline(files, decoding, crop=None):
    """Batches of images, without end."""
    from polynet_keras.data.augmentation import Augmentation
    from polynet_keras.data.pipeline import evaluation_batches, training_batches
    from polynet_keras.data.protocol import Preprocessing

    protocol = Preprocessing(SIZE, RESIZE, decoding=decoding)
    if crop is None:
        dataset = evaluation_batches(examples_of(files), protocol, BATCH).dataset.repeat()
    else:
        dataset = training_batches(examples_of(files), protocol, BATCH, 0, Augmentation(crop)).dataset
    return (images for images, *_ in dataset)


def in_threads(one, files):
    """Batches of what `one` makes of the files, without end."""
    with ThreadPoolExecutor(2) as threads:
        start = 0
        while True:
            chosen = [files[i % len(files)] for i in range(start, start + BATCH)]
            yield np.stack(list(threads.map(one, chosen)))
            start += BATCH


def service(files, decoding):
    from polynet_keras.data.protocol import Preprocessing
    from polynet_keras.deployment.serving.preparation import for_service, prepare

    protocol = for_service(Preprocessing(SIZE, RESIZE, decoding=decoding))
    return in_threads(lambda file: prepare(file.read_bytes(), file.name, protocol, 1, 10**8)[0][0], files)


def by_pillow(files, decoder):
    from PIL import Image

    def decoded(file):
        encoded = file.read_bytes()
        if decoder == "simplejpeg":
            import simplejpeg

            return Image.fromarray(simplejpeg.decode_jpeg(encoded, "RGB", min_height=RESIZE, min_width=RESIZE))
        image = Image.open(io.BytesIO(encoded))
        if decoder == "draft":
            image.draft(None, (RESIZE, RESIZE))
        return image

    def one(file):
        image = decoded(file).convert("RGB").resize((RESIZE, RESIZE), Image.Resampling.BILINEAR)
        left = round((RESIZE - SIZE) / 2)
        image = image.crop((left, left, left + SIZE, left + SIZE))
        return (np.asarray(image, "float32") / 255 - MEAN) / STD

    return in_threads(one, files)


def settle():
    """Waits until the side before has made its batches ahead: their time is not the next one's."""
    busy = True
    while busy:
        start = time.process_time()
        time.sleep(0.2)
        busy = time.process_time() - start > 0.02


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    from polynet_keras.data.records.shrinking import Shrinking

    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "large"), Path(folder, "small")
        for path in (large, small):
            path.mkdir()
        make_photographs(large)
        files = sorted(large.iterdir())
        shrink, start = Shrinking(MAX_SIDE), time.process_time()
        for file in files:
            (small / file.name).write_bytes(shrink(file.read_bytes(), file.name)[0])
        shrinking = 1000 * (time.process_time() - start) / len(files)
        print(f"files: {np.mean([file.stat().st_size for file in files]) / 1e6:.2f} MB", end="; ")
        print(f"shrunk: {np.mean([file.stat().st_size for file in small.iterdir()]) / 1e6:.3f} MB, {shrinking:.0f} ms")
        shrunk = sorted(small.iterdir())
        made = {
            "pipeline, exact": lambda: pipeline(files, "exact"),
            "pipeline, scaled": lambda: pipeline(files, "scaled"),
            f"pipeline, after --max_side {MAX_SIDE}": lambda: pipeline(shrunk, "exact"),
            "pipeline, exact, random-resized": lambda: pipeline(files, "exact", "random_resized"),
            "pipeline, scaled, random-resized": lambda: pipeline(files, "scaled", "random_resized"),
            "service, exact": lambda: service(files, "exact"),
            "service, scaled": lambda: service(files, "scaled"),
            f"service, after --max_side {MAX_SIDE}": lambda: service(shrunk, "exact"),
            "Pillow": lambda: by_pillow(files, None),
            "Pillow, draft": lambda: by_pillow(files, "draft"),
        }
        if importlib.util.find_spec("simplejpeg"):
            made["simplejpeg"] = lambda: by_pillow(files, "simplejpeg")
        sides = {name: make() for name, make in made.items() if name.startswith(arguments.only)}
        exact = next(iter(sides))
        firsts = {name: np.array(next(side)) for name, side in sides.items()}
        rates, times = {name: [] for name in sides}, {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, side in sides.items():
                settle()
                next(side), next(side), next(side)  # those that were ready
                start, cpu, images = time.perf_counter(), time.process_time(), 0
                while time.perf_counter() < start + arguments.seconds:
                    images += len(next(side))
                rates[name].append(images / (time.perf_counter() - start))
                times[name].append(1000 * (time.process_time() - cpu) / images)
    results = {}
    for name in sides:
        ratio = statistics.median(a / b for a, b in zip(rates[name], rates[exact], strict=True))
        difference = np.abs((firsts[name] - firsts[exact]) * STD * 255)
        far = "" if "random" in name else f", {difference.mean():.2f} levels from exact"
        rate, cpu = statistics.median(rates[name]), statistics.median(times[name])
        results[name] = {"images/s": rate, "CPU ms": cpu, "ratio": ratio, "rates": rates[name], "times": times[name]}
        print(f"{name}: {rate:.1f} images/s, {cpu:.1f} ms of CPU an image, {ratio:.2f} times{far}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": platform.processor(), "results": results}, indent=1))


if __name__ == "__main__":
    main()
