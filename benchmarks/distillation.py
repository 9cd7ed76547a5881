"""What a small net gains from a teacher: on a part of Fashion-MNIST, for the same number of epochs.

    python benchmarks/distillation.py

trains the student alone and with the package's checkpoint `fashion_mnist` as its teacher, by turns, with each seed. The
teacher was trained on all 60,000 images, the student sees the first ones only.
"""

import argparse
import dataclasses
import os
import platform
import time

import keras
import numpy as np

from polynet_keras.data import Unreadable, open_source
from polynet_keras.data.examples import Source
from polynet_keras.studies import confidence_interval
from polynet_keras.training import Recipe, Regularization, ScheduleSettings
from polynet_keras.training.runs.preparation import compiled_model, held_out_data, preprocessing_of, training_data

RECIPE = Recipe(
    data="fashion_mnist",
    structure="1 x [ir] | 1 x [ir] | 1 x [ir]",
    width=0.1,
    batch_size=64,
    schedule=ScheduleSettings("cosine", learning_rate=0.003),
)


def run(recipe: Recipe, source: Source) -> tuple[float, float]:
    """The error on the held-out images, in percent, and seconds of the training."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(recipe.seed)
    preprocessing = preprocessing_of(recipe, source)
    training = training_data(recipe, source, preprocessing, Unreadable(), None, 0)
    model = compiled_model(recipe, source, training.steps)
    began = time.perf_counter()
    model.fit(training.dataset, steps_per_epoch=training.steps, epochs=recipe.epochs, shuffle=False, verbose=0)
    seconds = time.perf_counter() - began
    held_out = held_out_data(recipe, source.held_out, preprocessing, Unreadable(), None)
    return 100 * (1 - model.evaluate(held_out, verbose=0)[1]), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=6000, help="to train on")
    parser.add_argument("--held_out", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--weight", type=float, default=0.9)
    arguments = parser.parse_args()
    whole = open_source("fashion_mnist", 0)
    source = Source(
        whole.training.subset(np.arange(arguments.images), "training"),
        whole.held_out.subset(np.arange(arguments.held_out), "held out"),
    )
    print(f"Keras {keras.__version__}, {os.cpu_count()} cores, {platform.machine()}; {arguments}")
    print("| seed | alone, error % | taught | difference | seconds alone | taught |\n|---|---:|---:|---:|---:|---:|")
    differences = []
    taught = Regularization(
        teacher="fashion_mnist", teacher_temperature=arguments.temperature, teacher_weight=arguments.weight
    )
    for seed in range(arguments.seeds):
        alone = dataclasses.replace(RECIPE, seed=seed, epochs=arguments.epochs)
        (first, first_seconds), (second, second_seconds) = (
            run(recipe, source) for recipe in (alone, dataclasses.replace(alone, regularization=taught))
        )
        differences.append(second - first)
        print(
            f"| {seed} | {first:.2f} | {second:.2f} | {second - first:+.2f} | {first_seconds:.0f} | "
            f"{second_seconds:.0f} |",
            flush=True,
        )
    if len(differences) > 1:
        mean, low, high = confidence_interval(differences)
        print(f"error, taught minus alone: {mean:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}")


if __name__ == "__main__":
    main()
