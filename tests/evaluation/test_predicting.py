"""Predictions beside what the model gives image by image, for a run's folder and for published checkpoints."""

import dataclasses
import re
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from polynet_keras import PolyNet
from polynet_keras.data.image_files import read_image
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation import loading
from polynet_keras.evaluation.loading import TrainedModel, load_published, load_run
from polynet_keras.evaluation.predicting import _inputs, predict, predict_published
from polynet_keras.pretrained import ModelCard, published
from tests.data.arrays import random_images
from tests.data.hostile import hostile_images

PREPROCESSING = Preprocessing(12, 14, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
NAMES = tuple("abcdefg")


def small_model(classes=7, size=12):
    """Looks at each pixel, in the same order in both data formats' images."""
    first = keras.config.image_data_format() == "channels_first"
    inputs = keras.Input((3, size, size) if first else (size, size, 3))
    x = keras.layers.Flatten(data_format="channels_last")(inputs)
    keras.utils.set_random_seed(0)
    return keras.Model(inputs, keras.layers.Dense(classes, "softmax", kernel_initializer="random_normal")(x))


def save_run(folder, model, **fields):
    model.save(folder / "model.keras")
    ModelCard(
        **{"class_names": NAMES, "preprocessing": PREPROCESSING, "held_out": 9, "held_out_correct": 3, **fields}
    ).save(folder)


@pytest.fixture
def run(tmp_path):
    """A run's folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    save_run(folder, small_model(), structure="1 x [ir]")
    return folder


@pytest.fixture
def files(tmp_path):
    """Five photographs of different sizes, the first one grey."""
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path, pixels in zip(paths, random_images(5), strict=True):
        Image.fromarray(pixels).save(path)
    Image.open(paths[0]).convert("L").save(paths[0])
    return paths


def assert_predicted(predictions, files, model):
    """Each image by itself, prepared as the card says; of two of the seven classes."""
    assert [prediction.image for prediction in predictions] == [str(file) for file in files]
    for file, prediction in zip(files, predictions, strict=True):
        inputs = PREPROCESSING(read_image(file, 3))
        first = keras.config.image_data_format() == "channels_first"
        expected = model.predict_on_batch((np.moveaxis(inputs, -1, 0) if first else inputs)[None])[0]
        best = np.argsort(-expected)[:2]
        names, probabilities = zip(*prediction.classes, strict=True)
        assert names == tuple(NAMES[i] for i in best)
        np.testing.assert_allclose(probabilities, expected[best], rtol=1e-5)
        assert {type(probability) for probability in probabilities} == {float}


@pytest.mark.parametrize("batch_size", [2, 5, 32])
def test_predictions_of_a_run(run, files, monkeypatch, batch_size):
    monkeypatch.setattr("polynet_keras.evaluation.predicting.BATCH_SIZE", batch_size)
    model = keras.saving.load_model(run / "model.keras")
    assert_predicted(predict(run, files, top=2), files, model)
    assert_predicted(predict(str(run), [str(file) for file in files], top=2), files, model)
    assert [len(prediction.classes) for prediction in predict(run, files)] == [3] * 5


def test_predictions_in_channels_first(run, files):
    keras.config.set_image_data_format("channels_first")
    model = small_model()
    save_run(run, model)
    assert_predicted(predict(run, files, top=2), files, model)


def test_equally_probable_classes_come_in_their_order(run, files):
    model = small_model()
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    save_run(run, model)
    assert [name for name, _ in predict(run, files[:1], top=99)[0].classes] == list(NAMES)


def test_top(run, files):
    assert len(predict(run, files[:1], top=np.int64(2))[0].classes) == 2
    assert len(predict(run, files[:1], top=1)[0].classes) == 1
    for top in (0, "3", 2.0, True):
        with pytest.raises(ValueError, match="top=.* must be an integer of at least 1"):
            predict(run, files[:1], top=top)


def test_predictions_of_a_published_checkpoint(files, monkeypatch):
    model = small_model()
    asked = []

    def load(weights):
        asked.append(weights)
        return TrainedModel("small", model, PREPROCESSING, NAMES)

    monkeypatch.setattr("polynet_keras.evaluation.predicting.load_published", load)
    for weights in ("fashion_mnist", files[0]):  # a name, and any file
        assert_predicted(predict_published(weights, files, top=2), files, model)
    assert [len(prediction.classes) for prediction in predict_published("imagenet", files)] == [3] * 5
    assert asked == ["fashion_mnist", files[0], "imagenet"]
    # What can be told before anything is fetched is told then.
    for weights, images, top, message in (
        ("imagenet", [], 3, "no image to classify; name one or more"),
        ("imagenet", files, 0, "top=0 must be an integer of at least 1"),
        ("imagenet", [files[0], "none.png"], 3, "none.png: cannot be read as an image: No such file"),
        (files[0], ["none.png"], 3, "none.png: cannot be read as an image: No such file"),
        ("image-net", ["none.png"], 3, "weights='image-net' is no file; weights must be"),
    ):
        with pytest.raises(ValueError, match=message):
            predict_published(weights, images, top)
    assert len(asked) == 3


def test_bad_input(tmp_path, run, files):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match="text.png: cannot be read as an image"):
        predict(run, [files[0], tmp_path / "text.png"])
    with pytest.raises(ValueError, match="no image to classify"):
        predict(run, [])
    with pytest.raises(ValueError, match="no model card can be read: No such file"):
        predict(tmp_path, files)
    (run / "model.keras").rename(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="model.keras: no such file"):
        predict(run, files)
    (run / "model.keras").write_text("no model")
    with pytest.raises(ValueError, match="model.keras: not a readable Keras model"):
        predict(run, files)
    with zipfile.ZipFile(run / "model.keras", "w") as archive:
        archive.writestr("other.txt", "a zip, no model")
    with pytest.raises(ValueError, match="model.keras: not a readable Keras model"):
        predict(run, files)
    save_run(run, small_model(), class_names=("a", "b"))
    with pytest.raises(ValueError, match=r"run: .*the shape \(7,\), its card names 2 classes; they are not of one run"):
        predict(run, files)


def test_what_is_known_of_a_run(run):
    trained = load_run(run)
    assert (trained.name, trained.preprocessing, trained.class_names) == (str(run), PREPROCESSING, NAMES)
    assert trained.structure == "1 x [ir]"
    assert trained.model.output_shape == (None, 7)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_models_input_is_that_of_its_protocol(data_format):
    keras.config.set_image_data_format(data_format)
    first = data_format == "channels_first"

    def trained(*shape):
        inputs = keras.Input(shape)
        x = inputs if len(shape) == 1 else keras.layers.GlobalMaxPooling2D(data_format="channels_last")(inputs)
        return TrainedModel("net", keras.Model(inputs, keras.layers.Dense(7)(x)), PREPROCESSING, NAMES)

    fits = (3, 12, 12) if first else (12, 12, 3)
    trained(*fits)
    sides = (3, None, 12) if first else (None, 12, 3)  # any height
    trained(*sides)
    other_order, other_size, other_channels = (
        ((12, 12, 3), (3, 12, 13), (4, 12, 12)) if first else ((3, 12, 12), (13, 12, 3), (12, 12, 4))
    )
    for shape in (other_order, other_size, other_channels, (36,)):
        message = f"net: the model takes images of the shape {shape}, its protocol gives {fits}"
        with pytest.raises(ValueError, match=re.escape(message)):
            trained(*shape)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"preprocessing": {}, "class_names": []}', '{"preprocessing": 3}'])
def test_a_broken_card_is_named(tmp_path, text):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match="model.json: not a model card"):
        ModelCard.load(tmp_path)


@pytest.fixture
def small_checkpoint(monkeypatch):
    """The smallest network as a published checkpoint, and what `PolyNet` was asked for."""
    checkpoint = dataclasses.replace(published("fashion_mnist"), structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.1)
    asked = []

    def net(weights, **network):
        asked.append((weights, network))
        return PolyNet(weights=None, **network)

    monkeypatch.setattr(loading, "PolyNet", net)
    monkeypatch.setattr(loading, "published", {"imagenet": checkpoint}.__getitem__)
    monkeypatch.setattr(loading, "find_checkpoint", {"small": checkpoint}.get)
    return checkpoint, asked


def test_a_published_name_gives_its_checkpoint(small_checkpoint, monkeypatch):
    checkpoint, asked = small_checkpoint
    monkeypatch.setattr(loading, "published", None)  # for files, which have no name
    trained = load_published("small")
    assert asked == [("small", checkpoint.network)]
    assert (trained.name, trained.structure) == ("fashion_mnist", "1 x [ir] | 1 x [ir] | 1 x [ir]")
    assert (trained.preprocessing, trained.class_names) == (checkpoint.preprocessing, checkpoint.class_names)


def test_files_are_taken_for_the_released_net_and_no_other(small_checkpoint, tmp_path):
    """Here a small net stands for the released one."""
    checkpoint, asked = small_checkpoint
    nets = {classes: PolyNet(weights=None, **{**checkpoint.network, "classes": classes}) for classes in (10, 7)}
    for classes, net in nets.items():
        net.save_weights(tmp_path / f"{classes}.weights.h5")
    trained = load_published(tmp_path / "10.weights.h5")
    assert asked == [(None, checkpoint.network)]
    assert (trained.name, trained.structure) == (str(tmp_path / "10.weights.h5"), checkpoint.structure)
    assert (trained.preprocessing, trained.class_names) == (checkpoint.preprocessing, checkpoint.class_names)
    for found, expected in zip(trained.model.get_weights(), nets[10].get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    message = "7.weights.h5' has other classes than the 10 of fashion_mnist and does not say of which; a run folder"
    with pytest.raises(ValueError, match=message):
        load_published(tmp_path / "7.weights.h5")


def test_whatever_folders_hold_is_classified_or_refused_by_name(run, tmp_path):
    paths = [(image, tmp_path / image.name) for image in hostile_images()]
    for image, path in paths:
        path.write_bytes(image.encoded)
    readable = [(image, path) for image, path in paths if image.pixels is not None]
    inputs = np.stack([PREPROCESSING(image.pixels) for image, _ in readable])
    if keras.config.image_data_format() == "channels_first":
        inputs = np.moveaxis(inputs, -1, 1)
    expected = load_run(run).model.predict_on_batch(inputs).max(axis=1)
    found = predict(run, [path for _, path in readable], top=1)
    np.testing.assert_allclose([one.classes[0][1] for one in found], expected, rtol=1e-4)
    for image, path in paths:
        if image.pixels is None:
            with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: .*{image.reason}"):
                _inputs([path], PREPROCESSING)
