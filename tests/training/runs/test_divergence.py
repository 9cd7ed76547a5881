"""A run whose loss is no number any more: it stops at once, says what to do, and leaves the last good state."""

import keras
import numpy as np
import pytest

from polynet_keras import PolyNet
from polynet_keras.checkpoints.callback import Checkpoints
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.divergence import DivergenceError, StopOnDivergence
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.train import train

TINY = {"structure": "1 x [ir] | 1 x [ir] | 1 x [ir]", "width": 0.0625, "epochs": 3, "batch_size": 256}


def spoil_at(monkeypatch, step):
    """From a step on, the classifier's weights are NaN."""

    def spoil(self, batch, logs=None):
        if self.model.optimizer.iterations == step:
            head = self.model.get_layer("predictions")
            head.bias.assign(np.full(head.bias.shape, np.nan))

    monkeypatch.setattr(keras.callbacks.CSVLogger, "on_train_batch_end", spoil)


@pytest.mark.slow
def test_the_last_good_state_is_left_and_can_be_started_from(tmp_path, monkeypatch):
    """6 steps an epoch. The step that spoils the weights has a good loss, and is due to be saved: it is not."""
    with monkeypatch.context() as patch:
        spoil_at(patch, 8)
        with pytest.raises(DivergenceError) as error:
            train(Recipe(**TINY), tmp_path / "run", Execution(save_every_steps=4))
    file = tmp_path / "run" / "last_good.keras"
    recipe = tmp_path / "run" / "recipe.json"
    assert str(error.value) == (
        "the loss is nan in epoch 2, step 3; the net as it was after 6 steps is saved: start from it in a new folder "
        f"with --recipe={recipe} --weights={file}, and try a lower --learning_rate than 0.002, or --global_clipnorm=1"
    )
    model = keras.saving.load_model(file)
    assert model.optimizer.iterations == 6
    assert all(np.isfinite(weights).all() for weights in model.get_weights())
    again = Recipe.load(recipe).replaced({"start.weights": str(file), "start.carry_optimizer": True, "epochs": 1})
    assert train(again, tmp_path / "again").card.held_out == 359


@pytest.mark.slow
def test_weights_that_the_last_step_spoils_are_no_result(tmp_path, monkeypatch):
    """Its loss was computed before."""
    spoil_at(monkeypatch, 6)
    with pytest.raises(DivergenceError, match=r"the weights in predictions/bias are not finite after the last step"):
        train(Recipe(**{**TINY, "epochs": 1}), tmp_path / "run")
    assert not (tmp_path / "run" / "model.keras").exists()


@pytest.mark.slow
def test_without_a_good_state_nothing_is_left(tmp_path, monkeypatch):
    spoil_at(monkeypatch, 1)
    with pytest.raises(DivergenceError, match=r"in epoch 1, step \d, and nothing was saved before: try a lower"):
        train(Recipe(**TINY, precision="mixed_float16"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops(loss):
    callback = StopOnDivergence()
    callback.on_epoch_begin(4)
    callback.on_train_batch_end(1, {"loss": np.float32(3.0)})
    callback.on_train_batch_end(1, {})
    with pytest.raises(DivergenceError, match=f"the loss is {loss} in epoch 5, step 3"):
        callback.on_train_batch_end(2, {"loss": np.float32(loss)})


def test_reload_without_a_checkpoint(tmp_path):
    model = PolyNet(weights=None, structure=TINY["structure"], width=0.0625, input_shape=(75, 75, 1), classes=2)
    assert Checkpoints(tmp_path / "none", every_steps=1).reload(model) is None
