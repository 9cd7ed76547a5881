from pathlib import Path

import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.data.fashion_mnist import FOLDER as FASHION_MNIST_FOLDER
from polynet_keras.data.sources import fashion_mnist
from polynet_keras.pretrained.provenance import provenance_card
from polynet_keras.pretrained.registry import CHECKPOINTS, find_checkpoint, published
from polynet_keras.pretrained.stored_arrays import Format

WEIGHTS = Path(__file__).parent.parent.parent / "weights"


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda checkpoint: checkpoint.name)
def test_records(checkpoint):
    assert checkpoint.classes == len(checkpoint.class_names)
    assert checkpoint.preprocessing.channels == checkpoint.channels
    assert set(checkpoint.digest) <= set("0123456789abcdef")
    assert checkpoint.algorithm in ("sha1", "sha256")
    assert checkpoint.hash_of == ("member" if checkpoint.file.endswith(".zip") else "file")
    assert all(url.endswith(f"/{checkpoint.file}") for url in checkpoint.urls)
    # The publishers' own names carry the beginning of the hash.
    assert checkpoint.digest[:8] in checkpoint.file


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda checkpoint: checkpoint.name)
def test_cards_agree_with_the_registry(checkpoint):
    """`polynet weights --cards weights` writes them."""
    assert (WEIGHTS / f"{checkpoint.name}.md").read_text() == provenance_card(checkpoint)


def test_every_file_in_the_weights_folder_is_known():
    cards = {f"{checkpoint.name}.md" for checkpoint in CHECKPOINTS}
    shipped = {checkpoint.file for checkpoint in CHECKPOINTS if not checkpoint.urls}
    assert {path.name for path in WEIGHTS.iterdir()} - {"README.md"} == cards | shipped


def test_shipped_checkpoints_are_small_and_whole():
    for checkpoint in CHECKPOINTS:
        if not checkpoint.urls:
            assert (WEIGHTS / checkpoint.file).stat().st_size == checkpoint.size <= 8_000_000
            assert checkpoint.format is Format.KERAS


def test_names():
    assert published("imagenet") is published("imagenet-tf2cv")
    assert find_checkpoint("imagenet").format is Format.TF2CV
    assert find_checkpoint(None) is None
    assert find_checkpoint(__file__) is None
    with pytest.raises(ValueError, match="is called 'cifar'; known are imagenet, imagenet-tf2cv"):
        published("cifar")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"structure": "ir-5-10-5"},
            "5 x [poly-3, 2-way]' (got '5 x [ir]",
        ),
        ({"width": 0.5, "input_shape": (331, 331, 1)}, "width 1.0 (got 0.5), channels of the image 3 (got 1). Pass"),
        ({"width": 0.5}, "width 1.0 (got 0.5)"),
        ({"input_shape": (331, 331, 1)}, "channels of the image 3 (got 1)"),
        ({"share_projection": True}, "share_projection False (got True)"),
    ],
)
def test_other_networks_are_refused_before_anything_is_fetched(arguments, message):
    with pytest.raises(ValueError, match="weights='imagenet-tf2cv' are of a network with") as info:
        PolyNet(**arguments)
    assert message in str(info.value)


@pytest.mark.slow
@pytest.mark.skipif(not FASHION_MNIST_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_by_name():
    """On the first thousand test images; the whole test set: examples/evaluate_fashion_mnist.py."""
    held_out = fashion_mnist()["test"]
    checkpoint = published("fashion_mnist")
    model = PolyNet(weights="fashion_mnist", **checkpoint.network)
    images = np.stack([checkpoint.preprocessing(held_out.image(i)) for i in range(1000)])
    right = (model.predict(images, verbose=0).argmax(1) == held_out.labels[:1000]).sum()
    # The measured 92.86 %, less six standard deviations of a thousand draws.
    assert right / 1000 > 0.9286 - 6 * (0.9286 * 0.0714 / 1000) ** 0.5
