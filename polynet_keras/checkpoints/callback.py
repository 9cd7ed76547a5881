"""Checkpoints between two steps of `fit`, from which it resumes with the same result."""

import os
from typing import Any, NoReturn

import keras
from absl import logging

from polynet_keras.basics.checks import check_integer, check_number
from polynet_keras.basics.names import number_of
from polynet_keras.basics.news import tell
from polynet_keras.checkpoints import model_state
from polynet_keras.checkpoints.callback_state import get_states, set_states
from polynet_keras.checkpoints.files import CheckpointFiles, SavedState
from polynet_keras.checkpoints.interruption import Interruption, Preempted
from polynet_keras.checkpoints.position import Position, Progress
from polynet_keras.checkpoints.replay import TrainingSteps
from polynet_keras.checkpoints.restoring import check_steps, choose
from polynet_keras.checkpoints.saving import Saver, State
from polynet_keras.cluster.agreement import fail_together, sum_over_workers
from polynet_keras.cluster.workers import Strategy, is_chief, model_strategy, worker_count
from polynet_keras.engine.session import TrainingSession

BACKENDS = ("tensorflow", "jax")
"""On PyTorch Keras's step gets a batch, and not the iterator: a replayed step would read one."""


class Checkpoints(keras.callbacks.Callback):
    """Saves a training at intervals of steps or minutes, and resumes from there when you call `fit` again.

        checkpoints = Checkpoints("checkpoints", every_steps=1000, every_minutes=10)
        model.fit(dataset, epochs=90, callbacks=[checkpoints])

    A process that is killed and started again with the same script gets the weights, losses, metrics and history of an
    uninterrupted run: bit for bit, if the training itself is deterministic. It works for a PolyNet, a
    `DistributedModel` and other subclasses of `DistributedTraining`: on TensorFlow without a strategy or with one of
    several replicas or workers, and on JAX in one process, or in the several of `training.train`. A training resumes on
    the backend that it began on. Workers share the folder; the chief writes, and all resume from the same checkpoint.

    A checkpoint holds all variables of the model (with the states of its random layers), of its optimizers and metrics;
    the position; the logs; and the state of other callbacks (`callback_state.ATTRIBUTES`, or their `get_state` and
    `set_state`). `checkpoints.model_state` says why it holds no state of global generators. Files have checksums and
    are renamed when they are complete. If a checkpoint cannot be read, the callback warns and takes the one before it.
    If one cannot be written, for example on a full disk, it warns, and the training continues.

    A checkpoint is written every `every_steps` steps, every `every_minutes` minutes on the chief's clock, and at the
    end of training. If weights are not finite, the callback warns and writes none: the newest checkpoint has the last
    good state. After SIGTERM it saves when the current step of training or validation is done, and raises `Preempted`:
    a SIGTERM to one worker stops all workers of a `DistributedModel`.

    On resuming:

    * In the middle of an epoch Keras goes through the completed steps without computing them. Other callbacks see these
      steps, with the logs of the last one; afterwards they get their state at the checkpoint. A `CSVLogger` needs
      `append=True`.
    * The data must come in the same order again. With `skip_data` the batches of this epoch that were trained on are
      read and dropped, and a tf.data dataset is put into its state after the epochs before: `ds.shuffle(n, seed=0)`
      shuffles anew in each epoch, and continues in the right order. A `PyDataset` gets the calls of `on_epoch_begin`
      and `on_epoch_end` of those epochs. `fit` warns at its start of orders that cannot be repeated: a shuffle without
      a seed, a `PyDataset` with `shuffle=True`. A generator must give the same batches again by itself. Instead of
      reading and dropping batches, you can let the dataset start at `position.global_step`, with `skip_data=False`.
    * An interrupted validation runs again from its beginning.
    * If the training was complete, or a callback such as `EarlyStopping` had ended it, `fit` returns at once, with the
      weights and the history. With more epochs a complete training continues, unless a callback had ended it.

    Args:
        folder: the folder of the checkpoints; it must hold nothing else.
        every_steps: the number of steps (batches) between two checkpoints.
        every_minutes: the number of minutes between two checkpoints. Give at least one of the two.
        at_epoch_ends: save after every epoch too.
        keep: how many of the newest checkpoints to keep.
        skip_data: whether `fit` gets the data from their beginning, rather than from `position.global_step`.
        fingerprint: a text for everything that decides the training, such as its recipe. A checkpoint with another one
            is refused.
        strategy: the model's strategy, if you use `position` with several workers: they agree on it.

    Raises:
        ValueError: an argument is out of range, or the backend is neither TensorFlow nor JAX. From `fit`: the
            checkpoints are from another model, recipe, backend or number of steps, or none of them can be read.

    Examples:
        >>> from polynet_keras.engine import DistributedModel
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model = DistributedModel(net.inputs, net.outputs)
        >>> model.compile("sgd", "mse")
        >>> checkpoints = Checkpoints(folder, every_steps=10)
        >>> data = np.zeros((64, 2)), np.zeros((64, 1))
        >>> _ = model.fit(*data, epochs=3, shuffle=False, callbacks=[checkpoints], verbose=0)
        >>> Checkpoints(folder, every_steps=10).position
        Position(epoch=3, step=0, global_step=6)
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        every_steps: int | None = None,
        every_minutes: float | None = None,
        at_epoch_ends: bool = False,
        keep: int = 3,
        skip_data: bool = True,
        fingerprint: str = "",
        strategy: Strategy | None = None,
    ):
        super().__init__()
        _check_arguments(folder, every_steps, every_minutes, keep, fingerprint)
        self._files = CheckpointFiles(folder, int(keep))
        self._saver = Saver(self._files, every_steps, None if every_minutes is None else 60 * float(every_minutes))
        self._at_epoch_ends = at_epoch_ends
        self._skip_data = skip_data
        self._fingerprint = fingerprint
        self._strategy = strategy
        self._chosen: tuple[SavedState | None] | None = None
        self._steps: Any = None
        self._interruption: Any = None
        self._session: TrainingSession | None = None

    @property
    def position(self) -> Position:
        """The position where the next `fit` will resume: that of the newest readable checkpoint, or the beginning.

        Read it before `fit`; with several workers, give `strategy` and read it on all of them.

        Raises:
            ValueError: the checkpoint is from another recipe, or there are checkpoints but none can be read.
        """
        if self._chosen is None:
            self._chosen = (choose(self._files, self._fingerprint, self._strategy),)
        (saved,) = self._chosen
        return _progress(saved).position

    def reload(self, model: keras.Model) -> Position | None:
        """Sets a model and its optimizers to the values of the newest checkpoint, for a training that failed.

        Returns:
            The position of the checkpoint. None if there is none; the model is then unchanged.

        Raises:
            ValueError: there are checkpoints but none can be read.
        """
        saved = self._files.newest()
        if saved is None:
            return None
        model_state.assign(model, saved)
        return _progress(saved).position

    def set_session(self, session: TrainingSession) -> None:
        """Joins a call of `fit`, which calls this method before the training begins.

        Raises:
            ValueError: this callback has joined another call, or this call has another callback for the same work.
        """
        rivals = (Checkpoints, keras.callbacks.BackupAndRestore)
        if sum(isinstance(one, rivals) for one in session.callbacks) > 1:
            raise ValueError("fit() takes only one of Checkpoints and keras.callbacks.BackupAndRestore: leave one out")
        if self._session is not None:
            raise ValueError("this Checkpoints is in use by a running fit(): make another one, in another folder")
        self._session = session
        session.ends.callback(self._end, session.model, session.model.interruption)

    def on_train_begin(self, logs=None):
        session = self._session
        if session is None or session.model is not self.model:
            raise ValueError(
                "Checkpoints work in fit() of a PolyNet, of a DistributedModel and of other subclasses of "
                f"DistributedTraining; this is a {type(self.model).__name__}. "
                "DistributedModel(model.inputs, model.outputs) makes one of any functional or sequential model"
            )
        self._callbacks = session.callbacks
        strategy = model_strategy(self.model)
        self._several = worker_count(strategy) > 1
        self._chief = is_chief(strategy)
        self._steps = TrainingSteps(self.model, session.arguments.get("steps_per_epoch"), session.epoch_iterator)
        self._after_training_steps: State | None = None
        self._in_epoch = False
        self._saved = self._restore(session)
        # With a strategy of several workers, all of them learn of a SIGTERM at the same step.
        self._interruption = self.model.interruption = session.ends.enter_context(Interruption())

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._step, self._in_epoch = epoch, 0, True
        self._steps.begin_epoch()

    def on_train_batch_begin(self, batch, logs=None):
        self._steps.attach()

    def on_train_batch_end(self, batch, logs=None):
        self._step = batch + 1
        if self._steps.replays:
            self._replayed()
            return
        self._logs = logs or {}
        if self._told_to_stop():
            self._preempt(self._state_now() if self._chief else None)
        if self._chief and self._saver.is_due(self._position_now().global_step):
            self._write(self._state_now())

    def on_test_begin(self, logs=None):
        # Validation uses the variables of the same metrics.
        if self._in_epoch and self._chief:
            self._after_training_steps = self._state_now()

    def on_test_batch_end(self, batch, logs=None):
        if self._in_epoch and self._told_to_stop():
            self._preempt(self._after_training_steps)

    def on_epoch_end(self, epoch, logs=None):
        self._after_training_steps = None
        self._in_epoch = False
        self._steps_before += self._step
        self._epoch, self._step = epoch + 1, 0
        ended = bool(self.model.stop_training)
        if self._told_to_stop():
            self._preempt(self._state_now(ended) if self._chief else None)
        # Not in `on_train_end`: there Keras has replaced the weights by the optimizer's averages.
        if self._chief and (ended or self._at_epoch_ends or epoch + 1 >= self.params["epochs"]):
            self._write(self._state_now(ended))

    def _restore(self, session: TrainingSession) -> SavedState | None:
        """Makes the model, the callbacks and `fit` resume from the newest checkpoint, if there is one."""
        strategy, steps = model_strategy(self.model), self._steps
        before, self._chosen = self._chosen, None
        # Processes do not know what the others found, unless they looked together.
        if before is None or (self._several and self._strategy is None):
            saved = choose(self._files, self._fingerprint, strategy)
        else:
            (saved,) = before
        progress = _progress(saved)
        failure = None
        try:
            if before is not None and _progress(before[0]) != progress:
                raise ValueError(
                    "`position` may differ from the chief's: with several workers, use Checkpoints(strategy=...)"
                )
            if not self.model.built:
                raise ValueError(
                    "the model is not built: give it a keras.Input, or call model.build(input_shape), before fit()"
                )
            if self._chief:
                self._files.prepare()
            if saved is not None:
                model_state.check(self.model, saved)
                check_steps(saved, progress, self.params["steps"], self.model.steps_per_execution)
                self._put_back(saved)
        except ValueError as error:
            failure = error
        fail_together(strategy, failure)

        if self._skip_data and self._chief:
            steps.order.check(session.arguments.get("validation_data"))
        self._steps_before = progress.position.global_step - progress.position.step
        self._logs = progress.logs
        self._saver.start(progress.position.global_step)
        if saved is not None:
            place, epochs = progress.position, self.params["epochs"]
            if self._chief:
                tell("resuming from %s: epoch %d, step %d", saved.path, place.epoch + 1, place.step)
            if progress.ended or place.epoch >= epochs:
                how = "a callback ended it" if progress.ended else f"it has had {number_of(epochs, 'epoch')}"
                logging.warning("the training of %s is done: %s", saved.path, how)
            steps.go_on(progress, self._skip_data)
            session.start_at(max(place.epoch, epochs) if progress.ended else place.epoch)
        return saved

    def _put_back(self, saved: SavedState) -> None:
        model_state.assign(self.model, saved)
        missing = set_states(self._callbacks, saved.facts["callbacks"], saved.tensor)
        if missing and self._chief:  # the other workers have no callbacks that write
            tell("%s has states of callbacks that this run does not have: %s", saved.path, ", ".join(missing))

    def _replayed(self) -> None:
        """Runs after a replayed step. After the last one it restores the saved state, also what callbacks changed."""
        saved = self._saved
        assert saved is not None  # steps are replayed from it
        position = _progress(saved).position
        if not self._several and self._told_to_stop():
            self._stop(position, saved=True)
        if self._step == self.model.steps_per_execution:
            model_state.check_metrics(self.model, saved, self._steps.data_spec)
        if self._step >= position.step:
            self._put_back(saved)
            model_state.assign_metrics(self.model, saved)
            self._steps.replays = False
            self._saved = None

    def _told_to_stop(self) -> bool:
        if self._interruption is None:
            return False
        return self._interruption.agreed if self._several else self._interruption.requested

    def _preempt(self, state: State | None) -> NoReturn:
        """Saves, on the chief, and stops."""
        saved = state is not None and self._write(state)
        # The others wait until it is written: a scheduler may start all again when the first one has exited.
        saved = sum_over_workers(model_strategy(self.model), int(saved)) > 0
        self._stop(self._position_now(), saved)

    def _stop(self, position: Position, saved: bool) -> NoReturn:
        self._interruption.followed = True
        stop = Preempted(position, saved)
        logging.warning("SIGTERM: %s", stop)
        raise stop

    def _position_now(self) -> Position:
        return Position(self._epoch, self._step, self._steps_before + self._step)

    def _state_now(self, ended: bool = False) -> State:
        made, read = self._steps.iterators_before(epoch_is_over=not self._in_epoch)
        progress = Progress(
            self._position_now(),
            self.params["steps"],
            self.model.steps_per_execution,
            self._steps.batches_read(epoch_is_over=not self._in_epoch),
            made,
            read,
            self._steps.order.seeds,
            ended,
            self._logs,
        )
        callbacks, arrays = get_states(self._callbacks)
        facts = {
            "fingerprint": self._fingerprint,
            "backend": keras.backend.backend(),
            "progress": progress.to_json(),
            "variables": model_state.describe(self.model),
            "callbacks": callbacks,
        }
        return facts, {**model_state.read(self.model), **arrays}

    def _write(self, state: State) -> bool:
        spoiled = model_state.first_not_finite(self.model)
        if spoiled is not None:
            logging.warning("no checkpoint was written: the weights in %s are not finite", spoiled)
            return False
        return self._saver.write(state, self._position_now().global_step)

    def _end(self, model: keras.Model, interruption: Interruption | None) -> None:
        """Undoes all changes for one call of `fit` of a model; an outer call listens to SIGTERM again."""
        if self._steps is not None:
            self._steps.detach()
        model.interruption = interruption
        self._session = self._steps = self._interruption = self._chosen = None
        self._saved = self._after_training_steps = None


def _progress(saved: SavedState | None) -> Progress:
    return Progress(Position()) if saved is None else Progress.from_json(saved.facts["progress"])


def _check_arguments(folder, every_steps, every_minutes, keep, fingerprint) -> None:
    if keras.backend.backend() not in BACKENDS:
        raise ValueError(
            f"Checkpoints need Keras's backend tensorflow or jax, but this is {keras.backend.backend()!r}; "
            "keras.callbacks.BackupAndRestore works on all backends"
        )
    if not isinstance(folder, (str, os.PathLike)) or not os.fspath(folder):
        raise ValueError(f"folder={folder!r} must be the path of a folder")
    if not isinstance(fingerprint, str):
        raise ValueError(f"fingerprint={fingerprint!r} must be a string")
    if every_steps is None and every_minutes is None:
        raise ValueError("Checkpoints needs every_steps, every_minutes or both: it got neither")
    if every_steps is not None:
        check_integer("every_steps", every_steps, 1)
    if every_minutes is not None:
        check_number("every_minutes", every_minutes, above=0)
    check_integer("keep", keep, 1)
