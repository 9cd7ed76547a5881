"""Nearest neighbours and near-duplicates by embeddings: pictures of clothes, with NumPy.

    python examples/neighbours.py

writes 1,000 test images of Fashion-MNIST (Debian's package `dataset-fashion-mnist`, or what Keras fetches) as files,
and 50 of them once more, moved by a pixel and saved as JPEG of quality 50. The small checkpoint that comes with the
package embeds them. That takes a minute on two cores, and prints, up to noise,

    pixels     77 % of the same class, 27 of 50 copies, 8333 other pairs as near
    stage C    90 % of the same class, 35 of 50 copies, 8560 other pairs as near
    stem, max  82 % of the same class, 45 of 50 copies, 326 other pairs as near

how often the nearest other image is of the same class; of how many copies the nearest image is the original; and how
many pairs of different images are nearer to each other than half of the copies are to their originals. Stage C knows
best what is of one class, and takes pictures of one class for each other. For copies, the stem's largest values are
better; no cosine tells copies from other pictures of such clothes alone.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from polynet_keras import load_model
from polynet_keras.data import open_source
from polynet_keras.evaluation import Features, extract_features

IMAGES, COPIES = 1000, 50


def written(folder: Path) -> np.ndarray:
    """Writes the files, the originals first; returns the originals' labels."""
    held_out = open_source("fashion_mnist", seed=0).held_out
    for i in range(IMAGES):
        image = Image.fromarray(held_out.image(i)[..., 0])
        image.save(folder / f"{i:04d}.png")
        if i < COPIES:
            moved = Image.fromarray(np.roll(np.asarray(image), 1, axis=1))
            moved.save(folder / f"copy-{i:04d}.jpg", quality=50)
    return np.array([held_out.label(i) for i in range(IMAGES)])


def cosines(embeddings: np.ndarray) -> np.ndarray:
    """Of all pairs, (images, images); an image and itself have -1, so that it is not its own neighbour."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -1)
    return similarity


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = written(folder)
        files = sorted(map(str, folder.iterdir()))
        model = load_model("fashion_mnist")
        extract_features(model, files).save(folder / "features.npz")
        vectors = {
            "pixels": np.stack([np.asarray(Image.open(file), "float32").ravel() for file in files]),
            "stage C": Features.load(folder / "features.npz").embeddings,
            "stem, max": extract_features(model, files, stage="stem", pooling="max").embeddings,
        }
    for what, rows in vectors.items():
        similarity = cosines(rows)
        among, to_copies = similarity[:IMAGES, :IMAGES], similarity[IMAGES:, :IMAGES]
        same = np.mean(labels[among.argmax(axis=1)] == labels)
        found = np.sum(to_copies.argmax(axis=1) == np.arange(COPIES))
        middle = np.median(to_copies.diagonal())
        nearer = np.sum(np.triu(among, 1) > middle)
        seen = f"{100 * same:.0f} % of the same class, {found} of {COPIES} copies, {nearer} other pairs as near"
        print(f"{what:<10} {seen}")


if __name__ == "__main__":
    main()
