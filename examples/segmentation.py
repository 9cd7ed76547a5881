"""A head that segments, on the feature pyramid of a small PolyNet: which pixels are a disc, a square, a triangle?

    python examples/segmentation.py

draws images of coloured shapes on noise, trains the net and its head from scratch on 800 of them, and measures 100
others. That takes a few minutes on two cores, and prints, up to noise,

    P5 stride 32, first place at pixel 37: 3 x 3 x 312
    P4 stride 16, first place at pixel 21: 7 x 7 x 176
    P3 stride 8, first place at pixel 13: 15 x 15 x 64
    P2 stride 4, first place at pixel 9: 31 x 31 x 32
    mean IoU of 100 other images: 0.76; of "all is background": 0.20

The colours tell nothing: they are drawn for each shape anew. The head goes from coarse to fine, as that of a U-Net. A
map's reductions are convolutions of 3 x 3 with stride 2 and without padding, so that a transposed convolution of the
same kind brings each place back to where it was, where the sides are odd: images of 75 + 64 n pixels.
"""

import keras
import numpy as np
from keras import layers

from polynet_keras import PolyNet
from polynet_keras.engine import Network
from polynet_keras.models import feature_pyramid

SIDE = 139
CLASSES = ("background", "disc", "square", "triangle")
LEVELS = ("P2", "P3", "P4", "P5")


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, float32 (count, SIDE, SIDE, 3), and the class of each of their pixels, uint8 (count, SIDE, SIDE)."""
    random = np.random.default_rng(seed)
    images = random.normal(0, 0.3, (count, SIDE, SIDE, 3)).astype("float32")
    masks = np.zeros((count, SIDE, SIDE), "uint8")
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for image, mask in zip(images, masks, strict=True):
        image += random.uniform(-1, 1, 3)
        for _ in range(3):
            kind, size = random.integers(1, len(CLASSES)), random.integers(14, 26)
            y, x = rows - random.integers(size, SIDE - size), columns - random.integers(size, SIDE - size)
            inside = {
                1: x**2 + y**2 <= size**2,
                2: np.maximum(abs(x), abs(y)) <= 0.9 * size,
                3: (abs(y) <= size) & (2 * abs(x) <= size + y),
            }[kind]
            image[inside] = random.uniform(-1, 1, 3) + random.normal(0, 0.3, (inside.sum(), 3))
            mask[inside] = kind
    return images, masks


def built() -> tuple[keras.Model, int, int]:
    """A model from images to the class of each place of P2; and that level's offset and stride."""
    backbone = PolyNet(
        include_top=False,
        weights=None,
        input_shape=(SIDE, SIDE, 3),
        structure="1 x [2-way] | 1 x [poly-2] | 1 x [2-way]",
        width=0.15,
    )
    pyramid = feature_pyramid(backbone)
    x = None
    for name in reversed(LEVELS):
        level = pyramid[name]
        print(
            f"{name} stride {level.stride}, first place at pixel {level.offset}: "
            f"{' x '.join(map(str, level.output.shape[1:]))}"
        )
        features = layers.Conv2D(32, 1, use_bias=False)(level.output)
        if x is not None:
            features = layers.Add()([features, layers.Conv2DTranspose(32, 3, strides=2)(x)])
        x = layers.ReLU()(layers.BatchNormalization()(features))
    logits = layers.Conv2D(len(CLASSES), 3, padding="same")(x)
    return Network(backbone.inputs, logits), level.offset, level.stride


def mean_iou(masks: np.ndarray, found: np.ndarray) -> float:
    metric = keras.metrics.MeanIoU(len(CLASSES))
    metric.update_state(masks, found)
    return float(metric.result())


def main() -> None:
    keras.utils.set_random_seed(0)
    model, offset, stride = built()
    (images, masks), (others, their_masks) = drawn(800, seed=0), drawn(100, seed=1)
    seen = slice(offset, SIDE - offset, stride)
    places = [part[:, seen, seen] for part in (masks, their_masks)]
    epochs, batch_size = 12, 16
    rate = keras.optimizers.schedules.CosineDecay(4e-3, epochs * len(images) // batch_size)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(images, places[0], batch_size, epochs, verbose=0)
    found = model.predict(others, batch_size, verbose=0).argmax(-1)
    nothing = np.zeros_like(found)
    print(
        f"mean IoU of {len(others)} other images: {mean_iou(places[1], found):.2f}; "
        f'of "all is background": {mean_iou(places[1], nothing):.2f}'
    )


if __name__ == "__main__":
    main()
