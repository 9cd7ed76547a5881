import dataclasses
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from polynet_keras.data.preprocessing import read_image
from polynet_keras.evaluation.predict import predict
from polynet_keras.pretrained import ModelCard


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
