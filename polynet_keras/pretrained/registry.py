"""The checkpoints that have a name: where each comes from, how it is checked, what it is, what was measured of it."""

import os
from dataclasses import dataclass
from typing import Any

from polynet_keras.basics.checks import near_name
from polynet_keras.data.fashion_mnist import CLASSES as FASHION_MNIST_CLASSES
from polynet_keras.data.imagenet import imagenet_classes
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.models.structure import Structure
from polynet_keras.pretrained.stored_arrays import Format

G5 = "polynet-g5"
SQUARE_378 = Preprocessing(image_size=331, resize_size=378)
"""pretrainedmodels' evaluation with `--preserve-aspect-ratio` off: 378 is 331 / 0.875, rounded down."""
SHORTER_SIDE_378 = Preprocessing(image_size=331, resize_size=378, resize="shorter_side")
SHORTER_SIDE_379 = Preprocessing(image_size=331, resize_size=379, resize="shorter_side")
"""imgclsmob's evaluation: 379 is 331 / 0.875, rounded up."""


@dataclass(frozen=True)
class Accuracy:
    """What was measured of a checkpoint.

    Attributes:
        top1, top5: in percent of the images; `None` where it was not measured.
        images: which, and how many.
        preprocessing: under which protocol.
        source: who measured it.
    """

    top1: float
    top5: float | None
    images: str
    preprocessing: Preprocessing
    source: str


@dataclass(frozen=True)
class PublishedCheckpoint:
    """One checkpoint file.

    Attributes:
        name: what `PolyNet(weights=...)` takes.
        source: who made it, from what, and where.
        file: its name.
        urls: where it is fetched from, tried in order; none for a file that comes with this package.
        size: of the file, in bytes; `None` where it was never seen.
        algorithm: of the hash: "sha1" or "sha256".
        digest: the hash in hexadecimal digits, or as many of its first ones as the publisher gave.
        hash_of: "file", or "member" for the hash of what the zip archive holds.
        format: whose names the layers have in it.
        license: of the file, as far as its publisher says.
        structure, width, channels, classes: of the network, as `PolyNet` takes them.
        class_names: by index of the output.
        preprocessing: the protocol of the first of `accuracies`.
        accuracies: what was measured.
        training: how it was made, in (what, value) pairs, where it was made here.

    Examples:
        >>> checkpoint = published("imagenet")
        >>> checkpoint.name, checkpoint.structure
        ('imagenet-tf2cv', 'polynet-g5')
        >>> checkpoint.preprocessing.image_size
        331
    """

    name: str
    source: str
    file: str
    urls: tuple[str, ...]
    size: int | None
    algorithm: str
    digest: str
    hash_of: str
    format: Format
    license: str
    structure: str
    width: float
    channels: int
    classes: int
    class_names: tuple[str, ...]
    accuracies: tuple[Accuracy, ...]
    training: tuple[tuple[str, str], ...] = ()

    @property
    def preprocessing(self) -> Preprocessing:
        return self.accuracies[0].preprocessing

    @property
    def network(self) -> dict[str, Any]:
        """The arguments that `PolyNet(weights=name, **network)` needs beside the weights."""
        import keras

        size = self.preprocessing.image_size
        first = keras.config.image_data_format() == "channels_first"
        return {
            "structure": self.structure,
            "width": self.width,
            "input_shape": (self.channels, size, size) if first else (size, size, self.channels),
            "classes": self.classes,
        }

    def check_network(self, structure: Structure, width: float, channels: int, share_projection: bool) -> None:
        """Refuses a network that the weights are not of, before any layer is built.

        Raises:
            ValueError: the message has every argument that differs, what it is and what the weights are of.
        """
        wanted = {
            "structure": (str(structure), str(Structure.parse(self.structure))),
            "width": (width, self.width),
            "channels of the image": (channels, self.channels),
            "share_projection": (share_projection, False),
        }
        differences = [
            f"{argument} {expected!r} (got {got!r})" for argument, (got, expected) in wanted.items() if got != expected
        ]
        if differences:
            raise ValueError(
                f"weights={self.name!r} are of a network with {', '.join(differences)}. Pass what they are of "
                f"(polynet_keras.pretrained.published({self.name!r}).network has it), or weights=None"
            )


def _imagenet(name: str, **values: Any) -> PublishedCheckpoint:
    names = tuple(name for _, name in imagenet_classes())
    return PublishedCheckpoint(name, structure=G5, width=1.0, channels=3, classes=1000, class_names=names, **values)


ORIGIN = "of the authors' Caffe release, which it goes back to, no licence is known here"
VALIDATION = "ILSVRC 2012 validation, 50,000 images, one crop"

CHECKPOINTS = (
    _imagenet(
        "imagenet-tf2cv",
        source="tf2cv (O. Sémery, https://github.com/osmr/imgclsmob), converted from pretrainedmodels' port",
        file="polynet-0451-e752c86b.tf2.h5.zip",
        urls=("https://github.com/osmr/imgclsmob/releases/download/v0.0.428/polynet-0451-e752c86b.tf2.h5.zip",),
        size=None,
        algorithm="sha1",
        digest="e752c86bbde4f5ce07ab6d079673a62a7565acf7",
        hash_of="member",
        format=Format.TF2CV,
        license=f"MIT, as its repository; {ORIGIN}",
        accuracies=(Accuracy(80.91, 95.49, VALIDATION, SHORTER_SIDE_379, "imgclsmob's README"),),
    ),
    _imagenet(
        "imagenet-cadene",
        source="pretrainedmodels (R. Cadene, https://github.com/Cadene/pretrained-models.pytorch), "
        "A. Parinov's port of the authors' Caffe release (https://github.com/open-mmlab/polynet)",
        file="polynet-f71d82a5.pth",
        urls=("http://data.lip6.fr/cadene/pretrainedmodels/polynet-f71d82a5.pth",),
        size=None,
        algorithm="sha256",
        digest="f71d82a5",
        hash_of="file",
        format=Format.CADENE,
        license=f"BSD-3-Clause, as its repository; {ORIGIN}",
        accuracies=(
            Accuracy(81.002, 95.624, VALIDATION, SQUARE_378, "pretrainedmodels' README"),
            Accuracy(80.858, 95.560, VALIDATION, SHORTER_SIDE_378, "reported with the port"),
        ),
    ),
    _imagenet(
        "imagenet-pytorchcv",
        source="pytorchcv (O. Sémery, https://github.com/osmr/imgclsmob), converted from pretrainedmodels' port",
        file="polynet-0452-6a1b295d.pth.zip",
        urls=("https://github.com/osmr/imgclsmob/releases/download/v0.0.96/polynet-0452-6a1b295d.pth.zip",),
        size=None,
        algorithm="sha1",
        digest="6a1b295dad3f261b48e845f1b283e4eef3ab5a0b",
        hash_of="member",
        format=Format.PYTORCHCV,
        license=f"MIT, as its repository; {ORIGIN}",
        accuracies=(Accuracy(80.90, 95.48, VALIDATION, SHORTER_SIDE_379, "pytorchcv's README"),),
    ),
    PublishedCheckpoint(
        name="fashion_mnist",
        source="trained with this package",
        file="polynet-fashion_mnist-18adeee7.weights.h5",
        urls=(),
        size=7_069_424,
        algorithm="sha256",
        digest="18adeee75a753c2be84fbb9a1a53992b5912ffd77beeda469dd0ad6f6abd0eea",
        hash_of="file",
        format=Format.KERAS,
        license="Apache-2.0, as this package; Fashion-MNIST itself is MIT",
        structure="1 x [2-way] | 2 x [poly-3, 2-way] | 1 x [poly-3, 2-way]",
        width=0.25,
        channels=1,
        classes=10,
        class_names=FASHION_MNIST_CLASSES,
        accuracies=(
            Accuracy(
                92.86,
                None,
                "Fashion-MNIST test set, all 10,000 images",
                Preprocessing(75, 86, (0.5,), (0.5,)),
                "here: `python examples/evaluate_fashion_mnist.py`",
            ),
        ),
        training=(
            (
                "command",
                'polynet train --data fashion_mnist --structure "1 x [2-way] | 2 x [poly-3, 2-way] | '
                '1 x [poly-3, 2-way]" --width 0.25 --batch_size 64 --epochs 12',
            ),
            ("images", "all 60,000 of the training set; nothing was chosen by the test set"),
            ("seed", "0"),
            ("time", "25 min 50 s on 2 cores (AMD EPYC, Zen 4), TensorFlow 2.21.0, Keras 3.15.1; other work beside it"),
        ),
    ),
)

ALIASES = {"imagenet": "imagenet-tf2cv"}
"""HDF5 needs no PyTorch."""


def list_published() -> tuple[str, ...]:
    """What `weights` may name.

    Examples:
        >>> list_published()
        ('imagenet', 'imagenet-tf2cv', 'imagenet-cadene', 'imagenet-pytorchcv', 'fashion_mnist')
    """
    return (*ALIASES, *(checkpoint.name for checkpoint in CHECKPOINTS))


def published(name: str) -> PublishedCheckpoint:
    """The record of a checkpoint that has a name.

    Raises:
        ValueError: no checkpoint has it; the message lists those that are there.

    Examples:
        >>> published("fashion_mnist").license
        'Apache-2.0, as this package; Fashion-MNIST itself is MIT'
        >>> published("fashion_mnist").classes
        10
    """
    for checkpoint in CHECKPOINTS:
        if checkpoint.name == ALIASES.get(name, name):
            return checkpoint
    raise ValueError(
        f"no published checkpoint is called {name!r}; known are "
        f"{', '.join(list_published())}{near_name(name, list_published())}"
    )


def check_source(source: str | os.PathLike) -> None:
    """Raises a `ValueError` unless this is the name of a published checkpoint or the path of a file."""
    if os.fspath(source) not in list_published() and not os.path.isfile(os.path.expanduser(source)):
        raise ValueError(
            f"SOURCE {os.fspath(source)!r} is neither a file nor one of "
            f"{', '.join(list_published())}{near_name(os.fspath(source), list_published())}"
        )


def find_checkpoint(weights: str | os.PathLike | None) -> PublishedCheckpoint | None:
    """What the argument `weights` of the builders names; `None` where it is `None` or a file.

    Raises:
        ValueError: it is neither.
    """
    if weights is None:
        return None
    accepted = f"None, one of {', '.join(map(repr, list_published()))}, or the path of a weights file, zipped or not"
    if not isinstance(weights, (str, os.PathLike)):
        raise ValueError(f"weights={weights!r} must be {accepted}")
    if weights in list_published():
        return published(os.fspath(weights))
    if not os.path.isfile(os.path.expanduser(weights)):
        raise ValueError(
            f"weights={os.fspath(weights)!r} is not a file; weights must be "
            f"{accepted}{near_name(os.fspath(weights), list_published())}"
        )
    return None
