"""One call of `fit`, as an object that callbacks can ask for."""

import contextlib
from typing import Any

import keras

from polynet_keras.basics.keras_internals import initial_epoch, set_initial_epoch


class TrainingSession:
    """A call of `fit` of one of our models, from before its first step to its end, however it ends.

    Keras tells a callback neither which other callbacks there are, nor what `fit` was given, nor that it ended with an
    error. A callback with a method `set_session(session)` is given this object before the training begins. Such
    callbacks come last, so that they see, and can overrule, what the others have done in the same event.

    Args:
        model: compiled.
        arguments: of `fit`, by name.

    Attributes:
        model: the argument.
        arguments: with which Keras's `fit` is to be called.
        callbacks: those that `fit` was given; from `on_train_begin` on also those that Keras adds.
        epoch_iterator: Keras's, over the training data; on TensorFlow it is there when `on_train_begin` is called.
        ends: what is to be done when `fit` has ended, with an error or without one.
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
            # A callback may call `fit` itself: the session around comes back then, and the epoch that it begins with.
            ends.callback(setattr, self.model, "training_session", self.model.training_session)
            ends.callback(set_initial_epoch, self.model, initial_epoch(self.model))
            set_initial_epoch(self.model, None)
            self.ends = ends.pop_all()
        try:
            self._hand_to_callbacks()
        except BaseException:
            self.ends.close()
            raise
        # Not before: an evaluation that a callback begins when it gets its model makes an iterator of its own.
        self.model.training_session = self
        return self

    def __exit__(self, *exception) -> bool | None:
        return self.ends.__exit__(*exception)

    def begin(self, epoch_iterator: Any) -> None:
        """To be called with each iterator that Keras makes: the first one is over the training data."""
        if self.epoch_iterator is None:
            self.epoch_iterator = epoch_iterator
            if self._container is not None:
                self._container.set_params({**self._container.params, "steps": epoch_iterator.num_batches})

    def start_at(self, epoch: int) -> None:
        """Has `fit` begin with an epoch, counted from 0; to be called in `on_train_begin`."""
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
            steps=None,  # until the iterator is there
        )
