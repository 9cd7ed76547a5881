"""The call of `fit` of a run: its callbacks, and what is kept when it is interrupted or diverges."""

import shlex
from pathlib import Path
from typing import Any

import keras
from absl import logging

from polynet_keras.basics.interrupts import interrupts_kept
from polynet_keras.basics.names import number_of
from polynet_keras.checkpoints.callback import Checkpoints
from polynet_keras.checkpoints.interruption import Preempted
from polynet_keras.checkpoints.model_state import first_not_finite
from polynet_keras.cluster.agreement import sum_over_workers
from polynet_keras.cluster.workers import Strategy, is_chief
from polynet_keras.data.pipeline import Batches
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.best_epoch import BestEpoch
from polynet_keras.training.runs.divergence import DivergenceError, StopOnDivergence
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.folder import (
    HISTORY_FILE,
    LAST_GOOD_FILE,
    RECIPE_FILE,
    TENSORBOARD_FOLDER,
    has_checkpoints,
)
from polynet_keras.training.runs.history import forget_epochs
from polynet_keras.training.runs.progress import ProgressDisplay, tell_of_compilation
from polynet_keras.training.runs.resuming import resuming
from polynet_keras.training.runs.saving import save_model
from polynet_keras.training.runs.unfreezing import Unfreezing
from polynet_keras.training.stochastic_depth import AdaptiveStochasticDepth


def fit(
    model: keras.Model,
    recipe: Recipe,
    training: Batches,
    images: int,
    validation,
    path: Path,
    checkpoints: Checkpoints,
    execution: Execution,
    strategy: Strategy | None,
    best: BestEpoch | None = None,
) -> None:
    """Trains a model from the position of its checkpoints to the end of its recipe.

    Args:
        model: the compiled model.
        recipe: recipe of the run.
        training: training batches from the checkpoints' position on.
        images: number of images in an epoch.
        validation: validation data, as for `model.fit`.
        path: the run folder.
        checkpoints: checkpoints of the run.
        execution: execution of the run.
        strategy: strategy of the model.
        best: chooses the best epoch; None for no choice.

    Raises:
        DivergenceError: the loss is not finite; the message says what is left of the run, and what may help.
        KeyboardInterrupt: the run was interrupted.
    """
    place, writers, progress = checkpoints.position, [], None
    if is_chief(strategy):
        forget_epochs(path / HISTORY_FILE, place.epoch)
        progress = ProgressDisplay(images, recipe.batch_size, place.step)
        if place.epoch < recipe.epochs:
            tell_of_compilation()
        writers = [
            keras.callbacks.CSVLogger(str(path / HISTORY_FILE), append=True),
            keras.callbacks.TensorBoard(str(path / TENSORBOARD_FOLDER), write_graph=False),
        ]
    averages = keras.callbacks.SwapEMAWeights() if recipe.optimizer.ema_momentum else None
    phases = Unfreezing(recipe, training.steps, place) if recipe.start.unfreezing else None
    callbacks = [phases, StopOnDivergence(), _regularizing(recipe), progress, best, averages, *writers, checkpoints]
    try:
        with interrupts_kept():
            model.fit(
                training.dataset,
                validation_data=validation,
                epochs=recipe.epochs,
                steps_per_epoch=training.steps,
                callbacks=[callback for callback in callbacks if callback is not None],
                shuffle=False,
                verbose=0,
            )
        spoiled = first_not_finite(model)  # from the last step, whose loss was computed before the update
        if spoiled is not None:
            raise DivergenceError(f"the weights in {spoiled} are not finite after the last step")
    except DivergenceError as error:
        raise _with_advice(error, model, recipe, path, checkpoints, strategy) from None
    except (KeyboardInterrupt, SystemExit) as ended:
        for writer in writers:
            writer.on_train_end()  # the process may be left without its teardown, which would write the rest
        if isinstance(ended, (KeyboardInterrupt, Preempted)) and has_checkpoints(path) and is_chief(strategy):
            how = "stopped" if isinstance(ended, Preempted) else "interrupted"
            logging.warning("%s: %s resumes from the last checkpoint", how, resuming(path, execution, strategy))
        raise
    finally:
        if progress is not None:
            progress.close()


def _regularizing(recipe: Recipe) -> keras.callbacks.Callback | None:
    settings = recipe.regularization
    if settings.stochastic_depth != "adaptive":
        return None
    arguments: dict[str, Any] = {
        "metric": settings.gap_metric,
        "threshold": settings.gap_threshold,
        "window": settings.gap_window,
        "step": settings.drop_rate_step,
        "max_drop_rate": settings.max_drop_rate,
    }
    return AdaptiveStochasticDepth(**arguments)


def _with_advice(
    error: DivergenceError,
    model: keras.Model,
    recipe: Recipe,
    path: Path,
    checkpoints: Checkpoints,
    strategy: Strategy | None,
) -> DivergenceError:
    """Returns the error with what is left of the run, and what may help."""
    position = None
    if is_chief(strategy):
        try:
            position = checkpoints.reload(model)
            if position is not None:
                save_model(model, path / LAST_GOOD_FILE)
        except (OSError, ValueError) as failure:
            position = None
            logging.warning("%s cannot be written: %s", path / LAST_GOOD_FILE, failure)
    sum_over_workers(strategy, 0)  # wait while the chief writes: a worker that leaves earlier would look like a failure
    if not is_chief(strategy):
        return DivergenceError(f"{error}; the chief reports what was saved")
    advice = f"try a lower --learning_rate than {recipe.schedule.learning_rate:g}"
    own = [f"{phase.learning_rate:g}" for phase in recipe.start.unfreezing or () if phase.learning_rate]
    if own:
        advice += f", and in --unfreezing lower ones than {', '.join(own)}"
    if not recipe.optimizer.global_clipnorm:
        advice += ", or --global_clipnorm=1"
    if recipe.precision == "mixed_float16":
        advice += ", or --precision=mixed_bfloat16"
    if position is None:
        return DivergenceError(f"{error}, and nothing was saved before: {advice}")
    start = shlex.join([f"--recipe={path / RECIPE_FILE}", f"--weights={path / LAST_GOOD_FILE}"])
    return DivergenceError(
        f"{error}; the net as it was after {number_of(position.global_step, 'step')} is saved: start from it in a new "
        f"folder with {start}, and {advice}"
    )
