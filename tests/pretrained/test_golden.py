"""The published PolyNet's numbers, stored: no PyTorch is needed to compare with them. See tests/golden/formula.py."""

from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from polynet_keras import PolyNet, preprocess_input
from polynet_keras.pretrained.conversion import TORCH_NAMES, load_checkpoint
from polynet_keras.pretrained.name_maps import cadene
from polynet_keras.pretrained.registry import published
from polynet_keras.pretrained.stored_arrays import Checkpoint, Format, keras_layout
from tests.golden.formula import formula

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "published_logits.npz")


def checkpoint(model):
    """The formula's values under each of the source's keys; shapes are those of our variables, in PyTorch's layout."""
    arrays = {}
    for source, name in cadene().items():
        layer = model.get_layer(name)
        kind = "classifier" if name == "predictions" else "normalization" if name.endswith("_bn") else "convolution"
        for theirs, ours in TORCH_NAMES[kind].items():
            shape = tuple(next(v for v in layer.weights if v.name == ours).shape)
            shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
            arrays[f"{source}.{theirs}"] = keras_layout(formula(f"{source}.{theirs}", shape))
    return Checkpoint(Format.CADENE, arrays)


@pytest.mark.slow
def test_logits_and_features_are_those_of_the_published_implementation():
    model = PolyNet(weights=None, classifier_activation=None)
    report = load_checkpoint(model, checkpoint(model))
    assert (report.arrays, report.head) == (2567, "loaded")
    both = keras.Model(model.input, [model.output, model.get_layer("avg_pool").output])
    images = preprocess_input(GOLDEN["crops"].astype("float32"))
    logits, features = (keras.ops.convert_to_numpy(x) for x in both(images, training=False))
    for found, expected in ((logits, GOLDEN["logits"]), (features, GOLDEN["features"])):
        assert np.abs(expected[0] - expected[1]).max() > 0.05 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_prepared_photographs_are_those_of_the_published_implementation():
    for name, crop in zip(("china.jpg", "flower.jpg"), GOLDEN["crops"], strict=True):
        found = published("imagenet-cadene").preprocessing.crop(load_sample_image(name))
        assert np.abs(found - crop).max() <= 1.001
    prepared = preprocess_input(GOLDEN["crops"], data_format="channels_last")
    np.testing.assert_allclose(prepared[:, ::16, ::16], GOLDEN["prepared"], atol=1e-6)
