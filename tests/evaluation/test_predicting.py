"""Predictions beside what the model gives image by image."""

import dataclasses
import os
import re
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from polynet_keras import PolyNet
from polynet_keras.basics.names import size_text
from polynet_keras.data.crops import crop_plan, views
from polynet_keras.data.image_files import read_image
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation import image_outputs, loading
from polynet_keras.evaluation.loading import TrainedModel
from polynet_keras.evaluation.pooling import Pooling
from polynet_keras.evaluation.predicting import Prediction, predict
from polynet_keras.loading import load_model
from polynet_keras.pretrained import ModelCard, model_source, published
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


@pytest.fixture(params=["piped", "plain"])
def way(request, monkeypatch):
    """Images come by tf.data, or, as on other backends, without it."""
    if request.param == "plain":
        monkeypatch.setattr(image_outputs, "_piped", image_outputs._plain)
    elif keras.backend.backend() != "tensorflow":
        pytest.skip("TensorFlow's operations")


@pytest.fixture
def plain(monkeypatch):
    """Images come without tf.data, whose graph takes a second to make."""
    monkeypatch.setattr(image_outputs, "_piped", image_outputs._plain)


def expected_probabilities(files, model, crops=1, pooling=None):
    """What the model gives, image by image, prepared as the card says."""
    for file in files:
        image = read_image(file, 3)
        plan = crop_plan(*image.shape[:2], PREPROCESSING, crops)
        inputs = PREPROCESSING.normalize(views(image, PREPROCESSING, plan))
        first = keras.config.image_data_format() == "channels_first"
        logits = np.log(model.predict_on_batch(np.moveaxis(inputs, -1, 1) if first else inputs).astype("float64"))
        yield (pooling or Pooling())(logits[np.newaxis])[0]


def assert_predicted(predictions, files, model, **options):
    """Of two of the seven classes."""
    assert [prediction.image for prediction in predictions] == [str(file) for file in files]
    for prediction, expected in zip(predictions, expected_probabilities(files, model, **options), strict=True):
        best = np.argsort(-expected)[:2]
        names, probabilities = zip(*prediction.classes, strict=True)
        assert names == tuple(NAMES[i] for i in best)
        np.testing.assert_allclose(probabilities, expected[best], rtol=1e-4)
        assert {type(probability) for probability in probabilities} == {float}
        assert prediction.error is None


@pytest.mark.parametrize(
    "batch_size", [pytest.param(2, marks=pytest.mark.slow), 5, pytest.param(32, marks=pytest.mark.slow)]
)
def test_predictions_of_a_run(run, files, batch_size, way):
    model = keras.saving.load_model(run / "model.keras")
    assert_predicted(predict(run, files, top=2, batch_size=batch_size), files, model)
    trained = load_model(run)
    names = [str(file) for file in files]
    assert_predicted(predict(trained, names, top=2, batch_size=batch_size), files, model)


@pytest.mark.slow
def test_a_file_or_a_folder(run, files):
    assert [len(prediction.classes) for prediction in predict(run, files[0].parent)] == [5] * 5
    (prediction,) = predict(run, str(files[3]))
    assert prediction.image == str(files[3])


@pytest.mark.slow
def test_batches_leave_few_places_empty(run, files, monkeypatch):
    """One more image than a batch holds: two of half a batch, not one of a single image, which is filled up."""
    sizes = []
    scored = image_outputs.scored

    def spied(*arguments, batch_size, **options):
        sizes.append(batch_size)
        return scored(*arguments, batch_size=batch_size, **options)

    monkeypatch.setattr(image_outputs, "scored", spied)
    predict(run, files, batch_size=4)
    predict(run, files[:1], batch_size=4)
    predict(run, files[:1], batch_size=4, crops=10)  # of crops
    assert sizes == [3, 1, 4]


@pytest.mark.slow
def test_crops_are_pooled(run, files, way):
    model = keras.saving.load_model(run / "model.keras")
    assert_predicted(predict(run, files, top=2, crops=10), files, model, crops=10)
    pooling = Pooling("max")
    found = predict(run, files[:2], top=2, crops=144, pooling=pooling, batch_size=50)
    assert_predicted(found, files[:2], model, crops=144, pooling=pooling)


@pytest.mark.slow
def test_predictions_in_channels_first(run, files, way):
    keras.config.set_image_data_format("channels_first")
    model = small_model()
    save_run(run, model)
    assert_predicted(predict(run, files, top=2), files, model)


@pytest.mark.parametrize("crops", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_file_that_cannot_be_read_is_a_row_of_its_own(run, files, tmp_path, crops, way):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(files[1].read_bytes()[:-40])
    Image.new("RGB", (20000, 1)).save(tmp_path / "line.png")
    os.mkfifo(tmp_path / "pipe.png")
    bad = [tmp_path / name for name in ("text.png", "cut.png", "pipe.png", "none.png")]
    narrow = dataclasses.replace(PREPROCESSING, resize="shorter_side")
    save_run(run, small_model(), preprocessing=narrow)
    named = [*bad[:2], files[0], files[1], *bad[2:], tmp_path / "line.png", files[2]]
    found = predict(run, named, top=1, batch_size=2, crops=crops)
    assert [prediction.image for prediction in found] == [str(path) for path in named]
    reasons = [prediction.error for prediction in found]
    assert [i for i, reason in enumerate(reasons) if reason is None] == [2, 3, 6, 7]
    assert [len(prediction.classes) for prediction in found] == [reason is None for reason in reasons]
    for i, message in {
        0: "cannot be read as an image: its format is not one of JPEG",
        1: "cannot be read as an image: ",
        4: "cannot be read as an image: it is a pipe or a device, not a file",
        5: "no such file",
    }.items():
        assert reasons[i].startswith(message)


def test_no_file_can_be_read(run, tmp_path, way):
    (tmp_path / "text.png").write_text("no image")
    named = [tmp_path / "none.png", tmp_path / "text.png"]
    assert [prediction.classes for prediction in predict(run, named)] == [(), ()]
    (prediction,) = predict(run, named[:1])
    assert prediction == Prediction(str(named[0]), (), "no such file")


@pytest.mark.slow
def test_names_that_are_not_utf_8(run, files, tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    name = os.fsencode(folder) + b"/caf\xe9.png"
    with open(name, "wb") as copy:
        copy.write(files[0].read_bytes())
    with open(os.fsencode(folder) + b"/\xff.png", "wb") as broken:
        broken.write(b"no image")
    good, bad = predict(run, folder)
    assert os.fsencode(good.image) == name
    assert good.error is None
    assert bad.error.startswith("cannot be read as an image: its format")


def test_equally_probable_classes_come_in_their_order(run, files, plain):
    model = small_model()
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    save_run(run, model)
    assert [name for name, _ in predict(run, files[:1], top=99)[0].classes] == list(NAMES)


def test_top(run, files, plain):
    assert len(predict(run, files[:1], top=np.int64(2))[0].classes) == 2
    assert len(predict(run, files[:1], top=1)[0].classes) == 1
    for top in (0, "3", 2.0, True):
        with pytest.raises(ValueError, match="top=.* must be an integer of at least 1"):
            predict(run, files[:1], top=top)


def test_what_needs_no_model_is_refused_before_one_is_loaded(files):
    for images, top, message in (
        ([], 3, "no image is named; name image files or folders"),
        (files, 0, "top=0 must be an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            predict("imagenet", images, top)


def test_a_loaded_model_is_taken_as_it_is(files, plain):
    model = small_model()
    assert_predicted(predict(TrainedModel("small", model, PREPROCESSING, NAMES), files, top=2), files, model)


def test_bad_input(tmp_path, run, files):
    with pytest.raises(ValueError, match="no image is named"):
        predict(run, [])
    with pytest.raises(ValueError, match="crops=3 must be one of 1, 10, 144"):
        predict(run, files, crops=3)
    with pytest.raises(ValueError, match="batch_size=0 must be an integer of at least 1"):
        predict(run, files, batch_size=0)
    with pytest.raises(ValueError, match="is a folder without model.keras"):
        predict(tmp_path, files)
    (run / "model.keras").rename(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="is a folder without model.keras"):
        predict(run, files)
    (run / "model.keras").write_text("no model")
    with pytest.raises(ValueError, match="model.keras: not a readable Keras model"):
        predict(run, files)
    with zipfile.ZipFile(run / "model.keras", "w") as archive:
        archive.writestr("other.txt", "a zip, no model")
    with pytest.raises(ValueError, match="model.keras: not a readable Keras model"):
        predict(run, files)
    save_run(run, small_model(), class_names=("a", "b"))
    with pytest.raises(ValueError, match="run: the model's output is 7, and 2 classes are named"):
        predict(run, files)


def test_what_is_known_of_a_run(run):
    trained = load_model(run)
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
        message = f"net: the model takes images of {size_text(shape)}, its protocol gives {size_text(fits)}"
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
    monkeypatch.setattr(loading, "published", {"imagenet": checkpoint, "small": checkpoint}.__getitem__)
    monkeypatch.setattr(model_source, "list_published", lambda: ("small",))
    return checkpoint, asked


def test_a_published_name_gives_its_checkpoint(small_checkpoint, monkeypatch):
    checkpoint, asked = small_checkpoint
    trained = load_model("small")
    assert asked == [("small", checkpoint.network)]
    assert (trained.name, trained.structure) == ("fashion_mnist", "1 x [ir] | 1 x [ir] | 1 x [ir]")
    assert (trained.preprocessing, trained.class_names) == (checkpoint.preprocessing, checkpoint.class_names)


@pytest.mark.slow
def test_files_are_taken_for_the_released_net_and_no_other(small_checkpoint, tmp_path):
    """Here a small net stands for the released one."""
    checkpoint, asked = small_checkpoint
    nets = {classes: PolyNet(weights=None, **{**checkpoint.network, "classes": classes}) for classes in (10, 7)}
    for classes, net in nets.items():
        net.save_weights(tmp_path / f"{classes}.weights.h5")
    trained = load_model(tmp_path / "10.weights.h5")
    assert asked == [(None, checkpoint.network)]
    assert (trained.name, trained.structure) == (str(tmp_path / "10.weights.h5"), checkpoint.structure)
    assert (trained.preprocessing, trained.class_names) == (checkpoint.preprocessing, checkpoint.class_names)
    for found, expected in zip(trained.model.get_weights(), nets[10].get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    message = "7.weights.h5' has other classes than the 10 of fashion_mnist and does not say of which; name a run"
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "7.weights.h5")


@pytest.mark.slow
def test_whatever_folders_hold_is_classified_or_refused(run, tmp_path, way):
    paths = [(image, tmp_path / image.name) for image in hostile_images()]
    for image, path in paths:
        path.write_bytes(image.encoded)
    readable = [image for image, _ in paths if image.pixels is not None]
    inputs = np.stack([PREPROCESSING(image.pixels) for image in readable])
    if keras.config.image_data_format() == "channels_first":
        inputs = np.moveaxis(inputs, -1, 1)
    expected = load_model(run).model.predict_on_batch(inputs).max(axis=1)
    found = predict(run, [path for _, path in paths], top=1)
    probabilities = [one.classes[0][1] for one in found if one.error is None]
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4)
    for (image, _), one in zip(paths, found, strict=True):
        if image.pixels is None:
            assert re.search(image.reason, one.error)
