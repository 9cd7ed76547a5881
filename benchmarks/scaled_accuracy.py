"""Top-1 of the published Fashion-MNIST net on its test images as large JPEGs: decoded exactly and at a smaller scale.

    python benchmarks/scaled_accuracy.py --images 2000

Each image is enlarged to several sides, of which libjpeg decodes 1/2, 1/4 and 1/8, and saved in quality 90. What is
printed, for each side: both top-1, how many images one alone gets right, and how far the resized pixels are apart.
Images are prepared as the service does it.
"""

import argparse
import dataclasses
import io

import numpy as np

SIDES = {176: 2, 352: 4, 688: 8, 1024: 8}
"""In pixels, and the scale. The net's images are resized to 86 px: the first three are the least of a scale."""
BATCH = 100


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--sides", type=int, nargs="+", default=list(SIDES), choices=SIDES)
    arguments = parser.parse_args()

    from PIL import Image

    from polynet_keras import load_model
    from polynet_keras.data.fashion_mnist import load_fashion_mnist
    from polynet_keras.data.image_files import decode_image
    from polynet_keras.deployment.serving.preparation import for_service

    model = load_model("fashion_mnist")
    exact = for_service(model.preprocessing)
    protocols = exact, dataclasses.replace(exact, decoding="scaled")
    images, labels = (part[: arguments.images] for part in load_fashion_mnist()[1])
    for side in arguments.sides:
        right, apart = ([], []), []
        for start in range(0, len(images), BATCH):
            crops = ([], [])
            for pixels in images[start : start + BATCH]:
                file = io.BytesIO()
                image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
                image.save(file, "JPEG", quality=90)
                for found, protocol in zip(crops, protocols, strict=True):
                    found.append(protocol.crop(decode_image(file.getvalue(), 1, "", least_side=protocol.least_side)))
            apart.append(np.abs(np.subtract(*crops)).mean())
            for found, one in zip(crops, right, strict=True):
                best = model.logits(exact.normalize(np.stack(found))).argmax(axis=1)
                one.extend(best == labels[start : start + BATCH])
        first, second = map(np.array, right)
        print(
            f"{side} px at 1/{SIDES[side]}: exact {100 * first.mean():.2f} %, scaled {100 * second.mean():.2f} %, "
            f"right by one alone {(first & ~second).sum()} and {(second & ~first).sum()}; "
            f"{np.mean(apart):.2f} levels apart",
            flush=True,
        )


if __name__ == "__main__":
    main()
