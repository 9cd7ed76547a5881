"""The class of the models that `PolyNet` returns: a functional `keras.Model` whose training starts soon."""

import re
from collections.abc import Callable

import keras

from polynet_keras.engine.distributed_model import DistributedTraining
from polynet_keras.engine.rematerialization import RematerializedGraph
from polynet_keras.layers.stochastic_residual_scaling import StochasticResidualScaling
from polynet_keras.layers.variable_names import plain_variable_names
from polynet_keras.models.arguments import check_remat
from polynet_keras.models.polynomial import Polynomial
from polynet_keras.models.structure import STAGES, Structure

_SUM = re.compile(r"stage_([abc])_\d+_sum_([a-z_]+)")


@keras.saving.register_keras_serializable(package="polynet_keras")
class Network(DistributedTraining, keras.Model):
    """A functional `keras.Model` with rematerialization, and on TensorFlow with compiled steps that start soon.

    You build, use, save and load it like `keras.Model(inputs, outputs)`, and it computes the same up to rounding. On
    the TensorFlow backend `fit`, `evaluate`, `predict` and the `..._on_batch` methods make the graph of a step in
    another way than Keras: once, flat, and with few optimizations (`engine.compiled_step` says which, and why). With
    `run_eagerly`, `jit_compile=True` (which Keras's "auto" means if there is a GPU) or `steps_per_execution` above 1
    they are Keras's own, and with a distribution strategy those of `DistributedTraining`.

    Examples:
        >>> model = InceptionResNet((1, 1, 1), width=0.1)
        >>> isinstance(model, Network)
        True
        >>> features = Network(model.input, model.get_layer("avg_pool").output)
        >>> features.output_shape
        (None, 200)
    """

    def __init__(self, *args, **kwargs):
        if not args and not {"inputs", "outputs"} <= kwargs.keys():
            raise TypeError(
                f"make {type(self).__name__} from inputs and outputs, like keras.Model(inputs, outputs); a model "
                "with its own call() is a subclass of DistributedTraining and keras.Model, in this order "
                "(polynet_keras.engine.distributed_model)"
            )
        super().__init__(*args, **kwargs)

    _remat = "none"
    _rematerialized: RematerializedGraph | None = None
    _structure: str | None = None
    _behind: Callable | None = None

    @property
    def structure(self) -> str | None:
        """The residual units in the canonical notation of `models.Structure`, or `None` for another network.

        `PolyNet` sets it and files keep it. A model built from a PolyNet's layers, also by `keras.models.clone_model`,
        begins with `None`: it may be a part of the network, or have other layers. You can set it at any time, to a name
        or a notation that `PolyNet` takes.
        """
        return self._structure

    @structure.setter
    def structure(self, value: str | Structure | None) -> None:
        self._structure = None if value is None else str(Structure.parse(value))

    def begin_at(self, tensor: keras.KerasTensor) -> None:
        """From now on the model takes the output of an inner layer as its input, and skips the layers before it.

        All layers and weights stay part of the model; it trains, measures and saves them as before. The change holds
        only for this object: a saved model begins with the inputs.

        Args:
            tensor: a symbolic tensor of this model that all paths go through, such as `layer.output`.
        """
        behind = Network(tensor, self.outputs[0])
        behind.remat = self.remat
        self._behind = behind.__call__  # the model itself would be saved as a layer, its weights twice

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs) if self._behind is None else self._behind(*args, **kwargs)

    @property
    def remat(self) -> str:
        """The residual units that the backward pass computes again: `"none"`, `"stage_b"` or `"all"`.

        `"all"` recomputes every residual unit, `"stage_b"` those of stage B. Gradients stay the same, memory shrinks
        and a training step takes longer; `docs/memory.md` has measurements. You can set it at any time: compiled
        functions are then made again. `keras.models.clone_model` starts with `"none"`.
        """
        return self._remat

    @remat.setter
    def remat(self, value: str) -> None:
        check_remat(value)
        self._remat = value
        self._rematerialized = None
        if self.train_function is not None:
            self.make_train_function(force=True)  # `fit` may be running: a callback can set it

    def call(self, inputs, training=None, mask=None, **kwargs):
        if self._behind is not None:  # Keras's step on JAX does not go through `__call__`
            return self._behind(inputs, training=training)
        # Keras passes a mask of `None` for each of several inputs.
        masked = any(one is not None for one in keras.tree.flatten(mask))
        if not training or self._remat == "none" or masked or kwargs:
            return super().call(inputs, training=training, mask=mask, **kwargs)
        if self._rematerialized is None:
            self._rematerialized = RematerializedGraph(self, self._remat)
        return self._rematerialized(self._standardize_inputs(inputs))

    def get_config(self):
        return {**super().get_config(), "remat": self._remat, "structure": self._structure}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        is_older = "structure" not in config
        remat, structure = config.pop("remat", "none"), config.pop("structure", None)
        with plain_variable_names():
            model = super().from_config(config, custom_objects=custom_objects)
        model.remat = remat
        model.structure = _structure_by_names(model) if is_older else structure
        return model

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            if not self._step_is_ours():
                return super().make_train_function(force)
            from polynet_keras.engine.compiled_step import CompiledStep

            self.train_function = CompiledStep(self, self.train_step, trains=True)

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            if not self._step_is_ours():
                return super().make_test_function(force)
            from polynet_keras.engine.compiled_step import CompiledStep

            self.test_function = CompiledStep(self, self.test_step)

    def make_predict_function(self, force=False):
        if self.predict_function is None or force:
            if not self._step_is_ours():
                return super().make_predict_function(force)
            from polynet_keras.engine.compiled_step import CompiledPrediction

            self.predict_function = CompiledPrediction(self, self.predict_step)

    def compiled_function(self, function):
        if self.run_eagerly or self.jit_compile:
            return super().compiled_function(function)
        from polynet_keras.engine.compiled_step import FlatFunction

        return FlatFunction(self, function)

    def _step_is_ours(self) -> bool:
        """Whether `engine.compiled_step` compiles the step of this model, and not Keras."""
        if keras.backend.backend() != "tensorflow" or self.run_eagerly or self.jit_compile:
            return False
        return self.steps_per_execution == 1 and self._distribute_strategy is None


def _structure_by_names(model: keras.Model) -> Structure | None:
    """Returns the structure that the layers' names imply, for files of versions that did not store it."""
    stages: dict[str, list[Polynomial]] = {stage: [] for stage in STAGES}
    for layer in model.layers:
        match = _SUM.fullmatch(layer.name)
        if match and isinstance(layer, StochasticResidualScaling):
            try:
                stages[match[1]].append(Polynomial(tuple(match[2].upper().split("_"))))
            except ValueError:  # a user's own layer has such a name
                return None
    return Structure(tuple(map(tuple, stages.values()))) if all(stages.values()) else None
