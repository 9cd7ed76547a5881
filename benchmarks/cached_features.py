"""Fine-tuning behind a frozen part, with the features of that part computed once, and computed anew in each epoch.

    python benchmarks/cached_features.py --images 300 --epochs 10 --frozen_through stage_c
    python benchmarks/cached_features.py --images 300 --epochs 10 --frozen_through stage_b

The network is G5 at 331 px with random weights, the photographs are crops of scikit-learn's two, as JPEG; a fifth is
held out. Each side is a process of its own that does what `polynet train` does, and they take turns: a round is one run
of each. Printed are the seconds of each run, from the recipe to the saved model, the processor's seconds, which other
work beside it does not change much, and the medians' ratios.
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


def make_photographs(folder: Path, count: int) -> None:
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = load_sample_images().images
    for number in range(count):
        photograph = photographs[number % 2]
        top, left = (rng.integers(0, side - 400) for side in photograph.shape[:2])
        place = folder / ("china", "flower")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph[top : top + 400, left : left + 400]).save(place / f"{number:04d}.jpg", quality=90)


def make_weights(file: Path, structure: str) -> None:
    import keras

    from polynet_keras import PolyNet

    keras.utils.set_random_seed(0)
    PolyNet(weights=None, classes=2, structure=structure).save_weights(file)


def side(folder: Path, copies: int, settings: argparse.Namespace) -> tuple[float, float]:
    """Trains in this process; the seconds that it took, and those of the processor."""
    from absl import logging

    from polynet_keras.training import PRESETS, train

    logging.set_verbosity("info")
    recipe = PRESETS["finetune"].recipe.replaced(
        {
            "data": str(folder / "photographs"),
            "structure": settings.structure,
            "epochs": settings.epochs,
            "start.weights": str(folder / "random.weights.h5"),
            "start.frozen_through": settings.frozen_through,
            "start.cache_features": copies,
        }
    )
    with tempfile.TemporaryDirectory(dir=folder) as run:
        began = time.perf_counter(), time.process_time()
        train(recipe, run)
        return time.perf_counter() - began[0], time.process_time() - began[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--structure", default="polynet-g5")
    parser.add_argument("--frozen_through", default="stage_c")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sides", nargs="+", choices=("cached", "plain"), default=("cached", "plain"))
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.folder:
        (name,) = settings.sides
        print(*side(settings.folder, settings.copies if name == "cached" else 0, settings))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores: {json.dumps(vars(settings), default=str)}")
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in settings.sides}
    with tempfile.TemporaryDirectory() as folder:
        make_photographs(Path(folder, "photographs"), settings.images)
        make_weights(Path(folder, "random.weights.h5"), settings.structure)
        for number in range(settings.rounds):
            for name in settings.sides:
                command = [sys.executable, *sys.argv, "--folder", folder, "--sides", name]
                ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                took = tuple(map(float, ended.stdout.splitlines()[-1].split()))
                seconds[name].append(took)
                print(f"round {number + 1}, {name}: {took[0]:.1f} s, processor {took[1]:.1f} s", flush=True)
    if len(seconds) == 2:
        cached, plain = (
            [statistics.median(one) for one in zip(*seconds[name], strict=True)] for name in ("cached", "plain")
        )
        print(f"plain / cached: {plain[0] / cached[0]:.2f}, of processor seconds {plain[1] / cached[1]:.2f}")


if __name__ == "__main__":
    main()
