"""Comparison of an artifact in its own runtime with its Keras model, and the allowed differences."""

from collections.abc import Iterator

import numpy as np

from polynet_keras.basics.names import size_text
from polynet_keras.data.crops import crop_plan, views
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.deployment.calibration import Calibration, Labelled
from polynet_keras.deployment.comparison import Comparison, Top1
from polynet_keras.deployment.formats.format import Runner
from polynet_keras.evaluation.loading import TrainedModel

SMALLEST_PROBABILITY = 1e-6
"""Smaller probabilities count as this one in logarithms."""
LARGEST_DIFFERENCE = {"float32": 1e-4, "float16": 1e-2}
"""Largest difference of a probability, from sums in another order, or from weights of 11 bits."""
CLEAR_MARGIN, SMALLEST_AGREEMENT = 0.3, 0.9
"""For int8 weights: least margin of the two best probabilities, and share of such images that keep their best class."""
LARGEST_MOVE, SMALLEST_CORRELATION = 0.3, 0.7
"""For int8 weights, however unsure the model is: the largest mean total variation distance of the probabilities, and
the smallest correlation of the changes between images in their logarithms. Good exports of trained networks moved by
0.03 at most and correlated by 0.98 or more, of random networks by 0.28 and 0.80. An export that returns the same for
every image correlates by 0.
"""


def compare(trained: TrainedModel, run: Runner, precision: str, calibration: Calibration | None = None) -> Comparison:
    """Compares an artifact with its Keras model on the same images.

    Raises:
        ValueError: they differ by more than their precision explains.
    """
    if calibration is None:
        data = "crops of scikit-learn's two photographs"
        batches: Iterator[Labelled] = iter([(photographs(trained.preprocessing), None)])
    else:
        data, batches = calibration.held_out.name, calibration.to_compare(trained)
    expected, found, labels = _both(trained, run, batches)
    difference = float(np.abs(found - expected).max())
    same = found.argmax(axis=1) == expected.argmax(axis=1)
    top1 = None if labels is None else Top1.of(expected.argmax(axis=1) == labels, found.argmax(axis=1) == labels)
    comparison = Comparison(data, len(found), difference, float(same.mean()), top1)
    if precision in LARGEST_DIFFERENCE:
        if difference > LARGEST_DIFFERENCE[precision]:
            raise ValueError(
                f"the exported model's probabilities differ by {difference:.2g} from Keras's on {len(found)} "
                f"{data}; {precision} explains {LARGEST_DIFFERENCE[precision]:g}. Nothing was written"
            )
        return comparison
    second, best = np.sort(expected, axis=1)[:, -2:].T
    clear = best - second >= CLEAR_MARGIN
    if clear.any() and same[clear].mean() < SMALLEST_AGREEMENT:
        raise ValueError(
            f"the exported model names the same class for {same[clear].sum()} of the {clear.sum()} images of {data} "
            f"that Keras is sure of; {precision} must keep {SMALLEST_AGREEMENT:.0%}. Calibrate it on more images like "
            "those it will see, or keep layers in float. Nothing was written"
        )
    moved, correlation = float(np.abs(found - expected).sum(axis=1).mean() / 2), _correlation(found, expected)
    if moved > LARGEST_MOVE or correlation < SMALLEST_CORRELATION:
        raise ValueError(
            f"the exported model moves {moved:.2f} of an image's probability, the mean of {len(found)} of {data}, and "
            f"what images change in it correlates with Keras's by {correlation:.2f}; {precision} may move "
            f"{LARGEST_MOVE:g} and must correlate by {SMALLEST_CORRELATION:g}. Nothing was written"
        )
    return comparison


def _both(
    trained: TrainedModel, run: Runner, batches: Iterator[Labelled]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Returns both models' probabilities for all batches, float32 (images, classes), and the labels (images,)."""
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []
    for images, labels in batches:
        expected = trained.probabilities(images)
        # One by one and together: a batch must not change what an image gets.
        pieces = [images] if parts or len(images) == 1 else [images[:1], images[1:]]
        found = np.concatenate([run(piece) for piece in pieces])
        if found.shape != expected.shape or not np.isfinite(found).all():
            raise ValueError(
                f"the exported model gives {size_text(found.shape)} numbers, which are not finite, or not "
                f"{size_text(expected.shape)}"
            )
        parts.append((expected, found, labels))
    expected, found, labels = zip(*parts, strict=True)
    known = None if labels[0] is None else np.concatenate(labels)
    return np.concatenate(expected), np.concatenate(found), known


def _correlation(found: np.ndarray, expected: np.ndarray) -> float:
    """Correlates log-probabilities minus image and class means, which is what differs between images in the logits."""

    def changes(probabilities: np.ndarray) -> np.ndarray:
        logs = np.log(np.maximum(probabilities, SMALLEST_PROBABILITY))
        logs -= logs.mean(axis=1, keepdims=True)
        return logs - logs.mean(axis=0)

    x, y = changes(found), changes(expected)
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    return float((x * y).sum() / norms) if norms else 0.0


def photographs(preprocessing: Preprocessing) -> np.ndarray:
    """Returns 10 crops of each of scikit-learn's two photographs: float32 (20, image_size, image_size, channels)."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    crops = []
    for photograph in load_sample_images().images:
        image = Image.fromarray(photograph).convert({1: "L", 3: "RGB", 4: "RGBA"}[preprocessing.channels])
        pixels = np.asarray(image).reshape(image.height, image.width, preprocessing.channels)
        plan = crop_plan(image.height, image.width, preprocessing, 10)
        crops.append(preprocessing.normalize(views(pixels, preprocessing, plan)))
    return np.concatenate(crops).astype("float32")
