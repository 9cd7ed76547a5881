"""One call of `fit`, as an object that callbacks can ask for."""

import contextlib
from typing import Any

import keras

from polynet_keras.basics.keras_internals import initial_epoch, set_initial_epoch


class TrainingSession:
    """A call of `fit` of one of our models, from before its first step to its end, also if it ends with an error.

    Keras does not tell a callback about other callbacks, the arguments of `fit`, or an error that ended it. A callback
    with a method `set_session(session)` gets this object before the training begins. Such callbacks run last, so that
    they see, and can overrule, the effects of the others in the same event.

    Args:
        model: a compiled model.
        arguments: the arguments of `fit`, by name.

    Attributes:
        model: the argument.
        arguments: the arguments for Keras's `fit`.
        callbacks: the callbacks given to `fit`; from `on_train_begin` on, also those that Keras adds.
        epoch_iterator: Keras's iterator over the training data. On TensorFlow it exists from `on_train_begin` on.
        ends: functions to call when `fit` has ended, with an error or without one.
    """

    def __init__(self, model: Any, arguments: dict[str, Any]):
        self.model = model
        self.arguments = dict(arguments)
        self.callbacks: list[keras.callbacks.Callback] = []
        self.epoch_iterator: Any = None
        self.ends = contextlib.ExitStack()
        self._container: keras.callbacks.CallbackList | None = None

    def __enter__(self) -> "TrainingSession":
        with contextlib.ExitStack() as ends:
            # A callback may call `fit` itself: afterwards the outer session is restored, with its first epoch.
            ends.callback(setattr, self.model, "training_session", self.model.training_session)
            ends.callback(set_initial_epoch, self.model, initial_epoch(self.model))
            set_initial_epoch(self.model, None)
            self.ends = ends.pop_all()
        try:
            self._hand_to_callbacks()
        except BaseException:
            self.ends.close()
            raise
        # Not earlier: a callback may start an evaluation when it gets its model, which makes its own iterator.
        self.model.training_session = self
        return self

    def __exit__(self, *exception) -> bool | None:
        return self.ends.__exit__(*exception)

    def begin(self, epoch_iterator: Any) -> None:
        """Call this with each iterator that Keras makes: the first one is over the training data."""
        if self.epoch_iterator is None:
            self.epoch_iterator = epoch_iterator
            if self._container is not None:
                self._container.set_params({**self._container.params, "steps": epoch_iterator.num_batches})

    def start_at(self, epoch: int) -> None:
        """Makes `fit` begin with an epoch, counted from 0. Call this in `on_train_begin`."""
        set_initial_epoch(self.model, epoch)

    def _hand_to_callbacks(self) -> None:
        given: Any = self.arguments.get("callbacks")
        is_container = isinstance(given, keras.callbacks.CallbackList)
        self.callbacks = given.callbacks if is_container else keras.tree.flatten(given) if given else []
        asking = [one for one in self.callbacks if hasattr(one, "set_session")]
        if not asking:
            return
        for one in asking:
            one.set_session(self)
        self._container = given if is_container else self._made_as_keras_does()
        self.callbacks = self._container.callbacks
        self.callbacks.sort(key=lambda one: one in asking)
        self.arguments["callbacks"] = self._container

    def _made_as_keras_does(self) -> keras.callbacks.CallbackList:
        verbose, epochs = self.arguments.get("verbose", "auto"), self.arguments.get("epochs", 1)
        return keras.callbacks.CallbackList(
            self.callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            model=self.model,
            verbose=verbose,
            epochs=min(epochs, keras.config.max_epochs() or epochs),
            steps=None,  # until there is an iterator
        )
