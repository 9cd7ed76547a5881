"""The best epoch of a run, chosen by validation images: keeps its weights, and may end training early."""

import contextlib
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from absl import logging

from polynet_keras.basics.names import number_of
from polynet_keras.basics.news import tell
from polynet_keras.cluster.agreement import sum_over_workers
from polynet_keras.cluster.workers import is_chief, model_strategy, scope_of
from polynet_keras.pretrained.model_card import ModelCard, card_file
from polynet_keras.training.runs.saving import save_model


class BestEpoch(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the highest validation accuracy.

    A lower loss decides between equal accuracies, and then the earlier epoch.

    The weights are part of the callback's state, and so of each checkpoint: a resumed run has the best weights of its
    own past, whatever `best.keras` holds by then. The chief decides, and writes. The validated weights are the ones
    kept, so the callback must stand before `SwapEMAWeights`, which removes the averages after validation. It must also
    stand before the callbacks that write logs; they get `best_epoch`, counted from 0.

    Args:
        file: file of the best model so far, with a card; it serves only for inspection during the run.
        card: card of the model, without counts.
        images: returns the number of validated images; all workers call it together.
        patience: epochs without a better one before training ends; None for no early end.
        last_phase: first epoch of the last phase, from 0. Training does not end before it, and patience counts from it.

    Attributes:
        epoch: the best epoch so far, counted from 0; None before the first validation.
        accuracy, loss: of the best epoch's validation.
        validated: number of images in this validation.
    """

    def __init__(
        self,
        file: Path,
        card: ModelCard,
        images: Callable[[], int],
        patience: int | None = None,
        last_phase: int = 0,
    ):
        super().__init__()
        self.epoch: int | None = None
        self.accuracy = 0.0
        self.loss = math.inf
        self.validated = 0
        self._file = file
        self._card = card
        self._images = images
        self._patience = patience
        self._last_phase = last_phase
        self._under_way = 0
        self._values: list[np.ndarray] = []

    @property
    def card(self) -> ModelCard:
        """The model's card, with the best epoch and its validation counts."""
        assert self.epoch is not None
        correct = round(self.accuracy * self.validated)
        return dataclasses.replace(
            self._card, epoch=self.epoch + 1, validation=self.validated, validation_correct=correct
        )

    def restore(self) -> None:
        """Gives the model the best weights, including moving statistics; the optimizer keeps its state."""
        with scope_of(model_strategy(self.model)):
            for variable, value in zip(self.model.variables, self._values, strict=True):
                variable.assign(value)

    def get_state(self) -> dict[str, Any]:
        """Returns the state for a checkpoint."""
        if self.epoch is None:
            return {}
        names = ("epoch", "accuracy", "loss", "validated")
        return {**{name: getattr(self, name) for name in names}, "values": self._values}

    def set_state(self, state: dict[str, Any]) -> None:
        self.epoch, self.validated = int(state["epoch"]), int(state["validated"])
        self.accuracy, self.loss = float(state["accuracy"]), float(state["loss"])
        self._values = [
            np.asarray(value, variable.dtype)
            for value, variable in zip(state["values"], self.model.variables, strict=True)
        ]

    def on_epoch_begin(self, epoch, logs=None):
        self._under_way = epoch

    def on_test_end(self, logs=None):
        validated = self._images()  # without images there are no logs
        accuracy, loss = float(logs["accuracy"]), float(logs["loss"])
        loss = math.inf if math.isnan(loss) else loss
        better = self.epoch is None or (accuracy, -loss) > (self.accuracy, -self.loss)
        strategy = model_strategy(self.model)
        chief = is_chief(strategy)
        if not sum_over_workers(strategy, int(chief and better)):
            return
        self.epoch, self.accuracy, self.loss, self.validated = self._under_way, accuracy, loss, validated
        with scope_of(strategy):
            self._values = [np.array(keras.ops.convert_to_tensor(variable)) for variable in self.model.variables]
        if not chief:
            return
        try:
            save_model(self.model, self._file)
            self.card.save(self._file)
        except OSError as error:  # for example on a full disk; the weights are still kept
            logging.warning("%s cannot be written: %s", self._file, error.strerror or error)

    def on_epoch_end(self, epoch, logs=None):
        assert self.epoch is not None  # a validation came before
        logs["best_epoch"] = self.epoch
        waited_since = max(self.epoch, self._last_phase - 1)
        if self._patience is None or epoch - waited_since < self._patience or epoch + 1 >= self.params["epochs"]:
            return
        self.model.stop_training = True
        if is_chief(model_strategy(self.model)):
            waited = number_of(self._patience, "epoch")
            tell("training ends: %s without a better one than epoch %d", waited, self.epoch + 1)

    def remove(self) -> None:
        """Removes the file and its card when the run is done: the run's model is the best one."""
        for file in (self._file, card_file(self._file)):
            with contextlib.suppress(OSError):  # a remaining file must not fail the run
                file.unlink()
