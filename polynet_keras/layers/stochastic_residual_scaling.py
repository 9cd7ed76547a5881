"""Stochastic residual scaling: the sum of a residual unit, with stochastic depth on each of its paths."""

import math
from collections.abc import Sequence

import keras
from keras import ops

from polynet_keras.basics.checks import check_choice, check_flag, is_number
from polynet_keras.basics.names import number_of, size_text

MODES = ("batch", "sample")
RESCALES = ("inference", "training")


@keras.saving.register_keras_serializable(package="polynet_keras")
class StochasticResidualScaling(keras.layers.Layer):
    """Adds scaled residual paths to a shortcut, and keeps each path with its survival probability.

    `y = shortcut + Σ_k scale_k · m_k · path_k`, where, with b_k ~ Bernoulli(p_k) drawn independently for each path,

    | m_k                       | training, active | training, inactive | inference |
    | ------------------------- | ---------------- | ------------------ | --------- |
    | `rescale="inference"`     | b_k              | p_k                | p_k       |
    | `rescale="training"`      | b_k / p_k        | 1                  | 1         |

    so that inactive training computes the same as inference, and the expectation of active training is the inference
    value in either mode. Published code compares as follows:

    | code                                                    | `mode`                | `rescale`     |
    | ------------------------------------------------------- | --------------------- | ------------- |
    | Huang et al. 2016 (the paper and its Torch code)        | `"batch"`             | `"inference"` |
    | PolyNet as released (p_k multiplied in, no draws left)  | `"batch"`             | `"inference"` |
    | `tensorflow_addons.layers.StochasticDepth`              | `"batch"`             | `"inference"` |
    | `torchvision.ops.StochasticDepth`                       | `"batch"` or `"row"`  | `"training"`  |
    | `timm.layers.DropPath`                                  | `"sample"`            | `"training"`  |
    | EfficientNet in `keras.applications`                    | `"sample"`            | `"training"`  |

    (`"row"` of torchvision is `"sample"` here.) As in `tensorflow_addons`, whose layer this replaces, the input is
    a list that starts with the shortcut.

    Args:
        scale: float or one float per path, ≥ 0.
        survival_probability: float or one float per path, in [0, 1].
        mode: `"batch"`: one draw per path for the whole batch, which is the global batch if replicas share it
            (`draws_agree`); `"sample"`: one draw per path and example.
        rescale: `"inference"` or `"training"`; see the table.
        active: whether training draws paths at random.
        seed: int, for reproducible draws; by default drawn from `keras.utils.set_random_seed`'s generator.

    Call arguments:
        inputs: list `[shortcut, path_1, ..., path_K]` of tensors of one shape `(batch, ...)`.
        training: bool.

    Call returns:
        Tensor of the inputs' shape, in the layer's compute dtype. The draws are made in float32.

    Raises:
        ValueError: an argument is outside the ranges above, the inputs are not such a list, or the number of values of
            `scale` or `survival_probability` differs from the number of paths.

    `active` (a float32 scalar, 1 or 0), `survival_probability` and `scale` (float32, one value per path) are
    non-trainable variables. A callback can `assign` them without a retrace, and a weights file holds everything that
    decides the layer's output. They have one dtype, so that weights can be subtracted and averaged; `active` counts as
    on above ½. A survival probability assigned outside [0, 1] acts as the nearest bound.

    Source: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016, for the draws. The scaling at inference is
    the released PolyNet's.

    Examples:
        >>> layer = StochasticResidualScaling(survival_probability=0.75)
        >>> y = layer([np.ones((1, 2)), np.ones((1, 2))])  # in inference
        >>> keras.ops.convert_to_numpy(y).tolist()
        [[1.75, 1.75]]
    """

    def __init__(
        self,
        scale: float | Sequence[float] = 1.0,
        survival_probability: float | Sequence[float] = 1.0,
        mode: str = "batch",
        rescale: str = "inference",
        active: bool = True,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice("mode", mode, MODES)
        check_choice("rescale", rescale, RESCALES)
        check_flag("active", active)
        self.initial_scale = _checked("scale", scale, upper=math.inf)
        self.initial_survival_probability = _checked("survival_probability", survival_probability, upper=1.0)
        self.mode = mode
        self.rescale = rescale
        self.initially_active = active
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        if not isinstance(input_shape, (list, tuple)) or not all(isinstance(s, (list, tuple)) for s in input_shape):
            raise ValueError(
                f"{self.name} takes a list [shortcut, path, ...]; got one tensor of {size_text(input_shape)}"
            )
        if len(input_shape) < 2 or len({tuple(shape) for shape in input_shape}) != 1:
            raise ValueError(
                f"{self.name} takes a list [shortcut, path, ...] of two or more tensors of one shape; got shapes "
                f"{', '.join(map(size_text, input_shape))}"
            )
        paths = len(input_shape) - 1
        self.scale = self._add_state("scale", self.initial_scale, paths)
        self.survival_probability = self._add_state("survival_probability", self.initial_survival_probability, paths)
        self.active = self.add_weight(
            name="active",
            shape=(),
            dtype="float32",
            initializer="ones" if self.initially_active else "zeros",
            trainable=False,
            autocast=False,
        )

    def _add_state(self, name: str, value: float | list[float], paths: int) -> keras.Variable:
        if isinstance(value, list) and len(value) != paths:
            raise ValueError(
                f"{name}={value!r} has {number_of(len(value), 'value')}; the layer got "
                f"{number_of(paths, 'residual path')}"
            )
        return self.add_weight(
            name=name,
            shape=(paths,),
            dtype="float32",
            initializer=lambda shape, dtype: ops.ones(shape, dtype) * ops.convert_to_tensor(value, dtype),
            trainable=False,
            autocast=False,
        )

    @property
    def draws_agree(self) -> bool:
        """Whether all replicas of a distribution strategy must draw the same numbers: true in mode `"batch"`.

        A training step gives each replica its own seed state, except for layers where this property is true. Otherwise
        one batch would have as many draws as there are replicas. In mode `"sample"` the replicas must differ: with a
        common state, the first examples of all replicas would drop the same paths, and so would the second ones.
        """
        return self.mode == "batch"

    def call(self, inputs, training=None):
        shortcut, *paths = inputs
        factors = ops.unstack(self._factors(ops.shape(shortcut)[0], training), len(paths), axis=-1)
        y = shortcut
        for factor, path in zip(factors, paths, strict=True):
            factor = ops.cast(factor, path.dtype)
            if len(factor.shape):  # one draw an example: (batch,) → (batch, 1, ...)
                factor = ops.reshape(factor, (-1,) + (1,) * (len(path.shape) - 1))
            y = y + factor * path
        return y

    def _factors(self, batch_size, training):
        """Returns float32 `scale_k · m_k`, of shape (K,), or (batch, K) if each example has its own draws."""
        scale = ops.convert_to_tensor(self.scale)
        survival = ops.clip(ops.convert_to_tensor(self.survival_probability), 0.0, 1.0)
        kept = survival if self.rescale == "inference" else ops.ones_like(survival)
        if training:
            shape = (batch_size, *survival.shape) if self.mode == "sample" else survival.shape
            uniform = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
            drawn = ops.cast(uniform < survival, "float32")
            if self.rescale == "training":
                # A path that never survives is never kept: the bound only keeps 0/0 out of its factor.
                drawn = drawn / ops.maximum(survival, keras.config.epsilon())
            kept = ops.where(ops.convert_to_tensor(self.active) > 0.5, drawn, kept)
        return scale * kept

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])

    def get_config(self):
        return {
            **super().get_config(),
            "scale": self.initial_scale,
            "survival_probability": self.initial_survival_probability,
            "mode": self.mode,
            "rescale": self.rescale,
            "active": self.initially_active,
            "seed": self.seed,
        }


def _checked(name: str, value, *, upper: float):
    """Returns `value` as a float or a list of floats, each in [0, upper]."""
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if not values or not all(is_number(v) and 0.0 <= float(v) <= upper for v in values):
        bounds = "≥ 0" if math.isinf(upper) else f"in [0, {upper:g}]"
        raise ValueError(f"{name}={value!r} must be a number {bounds}, or a list of one such number a path")
    return [float(v) for v in values] if isinstance(value, (list, tuple)) else float(value)
