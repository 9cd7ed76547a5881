"""Embeddings beside what Keras's own pooling of the same layer gives, image by image."""

import re

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.data.image_files import read_image
from polynet_keras.data.protocol import Preprocessing
from polynet_keras.evaluation.extracting import extract_features
from polynet_keras.evaluation.features import Features
from polynet_keras.evaluation.loading import Runtime, TrainedModel
from tests.evaluation.test_predicting import NAMES, PREPROCESSING, files, plain, run, small_model, way  # noqa: F401
from tests.reference import randomize

SMALL = Preprocessing(75, 80, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def convolutional(head=()):
    keras.utils.set_random_seed(3)
    pooling = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dropout(0.5)]
    return keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            keras.layers.Conv2D(5, 3, activation="relu", name="first"),
            keras.layers.Conv2D(6, 3, activation="relu", name="second"),
            *(head or [*pooling, keras.layers.Dense(7, name="classes"), keras.layers.Softmax()]),
        ]
    )


def trained(model, preprocessing=PREPROCESSING):
    return TrainedModel("net", model, preprocessing, NAMES[: model.output_shape[-1]])


def prepared(paths, preprocessing=PREPROCESSING):
    return np.stack([preprocessing(read_image(path, 3)) for path in paths])


@pytest.mark.parametrize(("stage", "name", "channels"), [(None, "second", 6), ("first", "first", 5)])
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_embeddings_of_another_package(files, plain, stage, name, channels, pooling):  # noqa: F811
    model = convolutional()
    found = extract_features(trained(model), files, stage, pooling, batch_size=2)
    maps = keras.Model(model.inputs, model.get_layer(name).output).predict(prepared(files), verbose=0)
    expected = maps.mean(axis=(1, 2)) if pooling == "avg" else maps.max(axis=(1, 2))
    assert found.embeddings.shape == (5, channels)
    assert found.embeddings.dtype == np.float32
    np.testing.assert_allclose(found.embeddings, expected, rtol=1e-5)
    assert found.paths.tolist() == [str(file) for file in files]
    assert (found.stage, found.pooling, found.class_names, found.model) == (name, pooling, NAMES, "net")
    assert found.preprocessing == PREPROCESSING


@pytest.mark.slow
def test_both_ways_to_read(files, way):  # noqa: F811
    model = convolutional()
    found = extract_features(trained(model), files, batch_size=3)
    maps = keras.Model(model.inputs, model.get_layer("second").output).predict(prepared(files), verbose=0)
    np.testing.assert_allclose(found.embeddings, maps.mean(axis=(1, 2)), rtol=1e-4)


@pytest.mark.parametrize(
    "stage", [None, *(pytest.param(stage, marks=pytest.mark.slow) for stage in ("stage_c", "stem", "stage_a"))]
)
def test_embeddings_of_a_polynet(files, plain, stage):  # noqa: F811
    arguments = {"weights": None, "input_shape": (75, 75, 3), "structure": "1 x [ir] | 1 x [ir] | 1 x [ir]"}
    model = PolyNet(classes=7, width=0.05, **arguments)
    randomize(model, 0)
    found = extract_features(trained(model, SMALL), files[:2], stage)
    end = {"stem": "stem_mixed3_concat", "stage_a": "stage_a_01_relu"}.get(stage, "stage_c_01_relu")
    maps = keras.Model(model.input, model.get_layer(end).output)(prepared(files[:2], SMALL), training=False)
    np.testing.assert_allclose(found.embeddings, keras.ops.convert_to_numpy(maps).mean(axis=(1, 2)), rtol=1e-4)
    assert found.stage == (stage or "stage_c")
    assert np.abs(found.embeddings).max() > 0.1


def test_a_vector_is_taken_as_it_is(files, plain):  # noqa: F811
    hidden = [keras.layers.Flatten(), keras.layers.Dense(4, "relu", name="hidden"), keras.layers.Dense(7)]
    model = convolutional(hidden)
    found = extract_features(trained(model), files, pooling="max")
    expected = keras.Model(model.inputs, model.get_layer("hidden").output).predict(prepared(files), verbose=0)
    np.testing.assert_allclose(found.embeddings, expected, rtol=1e-5)
    assert (found.stage, found.pooling) == ("hidden", "")


def test_unreadable_files(files, plain):  # noqa: F811
    bad, gone = files[0].parent / "bad.png", files[0].parent / "gone.png"
    bad.write_bytes(b"no image")
    named = [files[0], bad, gone, files[1]]
    model = trained(convolutional())
    found = extract_features(model, named, on_error="skip")
    assert found.paths.tolist() == [str(files[0]), str(files[1])]
    expected = extract_features(model, files[:2]).embeddings
    np.testing.assert_allclose(found.embeddings, expected, rtol=1e-5, atol=1e-6)  # of batches of other sizes
    with pytest.raises(ValueError, match=rf"^{re.escape(str(bad))}: cannot be read as "):
        extract_features(model, named)
    with pytest.raises(ValueError, match=rf"^none of 2 images can be read; {re.escape(str(bad))}: cannot be read as "):
        extract_features(model, [bad, gone], on_error="skip")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": "thrid"}, "stage='thrid' must be a layer of model "),
        ({"stage": ""}, "stage='' is empty; name a stage, such as stage_c, or leave it out"),
        ({"pooling": "sum"}, "pooling='sum' must be one of avg, max"),
        ({"batch_size": 0}, "batch_size=0 must be an integer of at least 1"),
        ({"on_error": "pass"}, "on_error='pass' must be one of error, skip"),
        ({"images": []}, "no image is named"),
    ],
)
def test_bad_arguments(files, arguments, message):  # noqa: F811
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        extract_features(**{"model": trained(convolutional()), "images": files, **arguments})


def test_what_an_unknown_stage_is_told(files):  # noqa: F811
    model = convolutional()
    message = (
        f"stage='secnd' must be a layer of model {model.name!r} that puts out a map, or a vector, for each image; from "
        "the last one they are "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*did you mean second"):
        extract_features(trained(model), files, "secnd")


def test_a_classifier_in_a_model_inside(files, plain):  # noqa: F811
    head = keras.Sequential([keras.Input((8, 8, 6)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(7)])
    model = trained(convolutional([head]))
    with pytest.raises(
        ValueError,
        match=r"^the classifier is in a model inside: name a stage, a layer of model .* from the last one they are ",
    ):
        extract_features(model, files)
    assert extract_features(model, files, "second").embeddings.shape == (5, 6)


def test_an_export_gives_classes_alone(files):  # noqa: F811
    model = TrainedModel("clothes", Runtime(lambda images: images, "0"), PREPROCESSING, NAMES)
    with pytest.raises(ValueError, match="^clothes is exported: name the model that it was exported from"):
        extract_features(model, files)


def features(**fields):
    given = {
        "paths": np.array(["a.png", "caf\udce9.png"]),
        "embeddings": np.arange(6, dtype="float32").reshape(2, 3),
        "stage": "stage_c",
        "pooling": "avg",
        "class_names": ("a", "b"),
        "model": "net",
        "weights_hash": "12",
        "preprocessing": PREPROCESSING,
    }
    return Features(**{**given, **fields})


def test_a_session_shows_one_line_for_many_images():
    assert repr(features()) == "Features(2 images, 3 channels, stage='stage_c', model='net')"


def test_saved_and_loaded_without_pickle(tmp_path):
    one = features()
    one.save(tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["about", "embeddings", "paths"]
        assert arrays["paths"].tolist() == ["a.png", "caf\udce9.png"]  # a byte that is no UTF-8
        assert arrays["embeddings"].dtype == np.float32
    other = Features.load(tmp_path / "features.npz")
    np.testing.assert_array_equal(other.embeddings, one.embeddings)
    np.testing.assert_array_equal(other.paths, one.paths)
    for name in ("stage", "pooling", "class_names", "model", "weights_hash", "preprocessing"):
        assert getattr(other, name) == getattr(one, name)
    assert [file.name for file in tmp_path.iterdir()] == ["features.npz"]


def test_nothing_is_left_of_a_file_that_is_not_whole(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        features().save(tmp_path / "features.npz")
    assert not list(tmp_path.iterdir())


def test_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.npz: no such file; `polynet features` writes one"):
        Features.load(tmp_path / "gone.npz")
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.savez(tmp_path / "pickled.npz", paths=np.array([print]), embeddings=1, about="{}")
    for name in ("text", "other", "pickled"):
        with pytest.raises(ValueError, match=rf"{name}\.npz: not a file of features: "):
            Features.load(tmp_path / f"{name}.npz")
    with pytest.raises(ValueError, match=r"^embeddings of 2 x 3 must be \(images, channels\), for each of 1 paths"):
        features(paths=np.array(["a"]))
