import dataclasses
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.data.preprocessing import read_image
from polynet_keras.evaluation.predict import predict, predict_published
from polynet_keras.pretrained import ModelCard, published


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [3, 32])
def test_predictions_are_the_models(digits_run, monkeypatch, batch_size):
    monkeypatch.setattr("polynet_keras.evaluation.predict.BATCH_SIZE", batch_size)
    files = [*digits_run.samples]
    predictions = predict(digits_run.folder, files, top=10)
    model = keras.saving.load_model(digits_run.folder / "model.keras")
    for file, prediction in zip(files, predictions, strict=True):
        assert prediction.image == file
        pixels = digits_run.card.preprocessing(read_image(file, 1))
        expected = model.predict(pixels[np.newaxis], verbose=0)[0]
        names, probabilities = zip(*prediction.classes, strict=True)
        assert list(probabilities) == sorted(probabilities, reverse=True)
        np.testing.assert_allclose([expected[int(name)] for name in names], probabilities, atol=1e-5)


def test_top(digits_run):
    assert len(predict(digits_run.folder, digits_run.samples[:1], top=2)[0].classes) == 2
    assert len(predict(digits_run.folder, digits_run.samples[:1], top=99)[0].classes) == 10
    for top in (0, "3", 2.0):
        with pytest.raises(ValueError, match="top=.* must be an integer of at least 1"):
            predict(digits_run.folder, digits_run.samples[:1], top=top)


def test_bad_input(tmp_path, digits_run):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match="text.png: cannot be read as an image"):
        predict(digits_run.folder, [digits_run.samples[0], tmp_path / "text.png"])
    with pytest.raises(ValueError, match="no image to classify"):
        predict(digits_run.folder, [])
    with pytest.raises(ValueError, match="no model card can be read: No such file"):
        predict(tmp_path, digits_run.samples[:1])
    folder = shutil.copytree(digits_run.folder, tmp_path / "run")
    Path(folder, "model.keras").unlink()
    with pytest.raises(ValueError, match="model.keras: no such file"):
        predict(folder, digits_run.samples[:1])
    Path(folder, "model.keras").write_text("no model")
    with pytest.raises(ValueError, match="model.keras: not a readable Keras model"):
        predict(folder, digits_run.samples[:1])
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("other.txt", "a zip, no model")
    with pytest.raises(ValueError, match="model.keras: not a readable Keras model"):
        predict(folder, digits_run.samples[:1])
    shutil.copy(digits_run.folder / "model.keras", folder)
    dataclasses.replace(digits_run.card, class_names=("a", "b")).save(folder)
    with pytest.raises(ValueError, match="its card names 2 classes"):
        predict(folder, digits_run.samples[:1])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"preprocessing": {}, "class_names": []}', '{"preprocessing": 3}'])
def test_a_broken_card_is_named(tmp_path, text):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match="model.json: not a model card"):
        ModelCard.load(tmp_path)


@pytest.mark.slow
def test_files_are_taken_for_the_released_net_and_no_other(digits_run, tmp_path, monkeypatch):
    """Here a small net stands for the released one."""
    small = published("fashion_mnist")
    for module in ("predict", "loading"):
        monkeypatch.setattr(f"polynet_keras.evaluation.{module}.published", lambda name: small)
    image = digits_run.samples[0]
    for classes in (10, 7):
        model = PolyNet(weights=None, **{**small.network, "classes": classes})
        model.save_weights(tmp_path / f"{classes}.weights.h5")
    (prediction,) = predict_published(tmp_path / "10.weights.h5", [image], top=10)
    assert {name for name, _ in prediction.classes} == set(small.class_names)
    with pytest.raises(ValueError, match="7.weights.h5' has other classes than the 10 of fashion_mnist"):
        predict_published(tmp_path / "7.weights.h5", [image])
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match="is no checkpoint"):
        predict_published(tmp_path / "text", [image])
