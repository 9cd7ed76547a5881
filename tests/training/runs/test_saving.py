import keras
import pytest

from polynet_keras.basics.keras_internals import every_layer
from polynet_keras.layers import BatchNormalization
from polynet_keras.training.runs.saving import save_model


def momenta(model):
    return [layer.momentum for layer in every_layer(model) if isinstance(layer, keras.layers.BatchNormalization)]


@pytest.fixture
def model():
    nested = keras.Sequential([keras.Input((4, 4, 3)), BatchNormalization(momentum=0.97)])
    return keras.Sequential([keras.Input((4, 4, 3)), nested, keras.layers.BatchNormalization(momentum=0.99)])


def test_the_file_has_the_usual_momentum_and_the_model_keeps_the_runs(model, tmp_path):
    save_model(model, tmp_path / "model.keras")
    assert momenta(keras.saving.load_model(tmp_path / "model.keras")) == [0.9, 0.9]
    assert momenta(model) == [0.97, 0.99]


def test_a_full_disk_changes_neither_the_old_file_nor_the_model(model, tmp_path, monkeypatch):
    file = tmp_path / "model.keras"
    file.write_text("old")

    def full(self, path):
        path.write_text("half")
        raise OSError("no space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(OSError, match="no space left"):
        save_model(model, file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    assert momenta(model) == [0.97, 0.99]
