"""PolyInception: any polynomial of Inception blocks as a part of a functional graph."""

from collections.abc import Callable

import keras
from keras import KerasTensor

from polynet_keras.layers.stochastic_residual_scaling import StochasticResidualScaling
from polynet_keras.models.blocks import batch_normalization, channel_axis, convolution, mixed
from polynet_keras.models.inception import BLOCKS, ConvSpec
from polynet_keras.models.polynomial import Polynomial


class PolyInception:
    """One residual unit `relu(x + Σ s · term(x))`, for a polynomial over the Inception block of a stage.

    Sharing follows the released model. Equal letters share their convolutions, while each *application* of a letter (F
    to x, F to F's output, ...) has its own batch normalizations and projection. The ReLU sits between the orders and
    after the sum; the sum takes each term's value before its ReLU:

        y1 = F(x);  y2 = F(relu(y1));  out = relu(x + s·y1 + s·y2)        # I + F + F²

    Args:
        polynomial: the unit's `Polynomial`.
        stage: `"a"`, `"b"` or `"c"`: which Inception block F, G, H, ... are.
        scale: factor of every term but the identity.
        survival_probability: of every term but the identity; see `layers.StochasticResidualScaling`.
        share_projection: if true, applications of one letter share the convolution of the projection too (the
            paper's polynomial); the released model, and the default, gives each application its own.
        width: multiplier of the block's inner channel counts.
        name: prefix of all layer names: `{name}_{letter}_...` for layers that a letter shares,
            `{name}_{application}_...` for layers that an application owns, `{name}_sum_{term}_...` for the sum.

    An instance is one unit of a network: call it once, on a symbolic 4-D tensor; it returns a tensor of this shape.

    Examples:
        >>> unit = PolyInception(Polynomial.parse("I + F + F^2"), "a", width=0.1, name="unit")
        >>> unit(keras.Input((9, 9, 16))).shape
        (None, 9, 9, 16)
    """

    def __init__(
        self,
        polynomial: Polynomial,
        stage: str,
        *,
        scale: float = 1.0,
        survival_probability: float = 1.0,
        share_projection: bool = False,
        width: float = 1.0,
        name: str,
    ):
        self.polynomial = polynomial
        self.stage = stage
        self.scale = scale
        self.survival_probability = survival_probability
        self.share_projection = share_projection
        self.width = width
        self.name = name
        self._shared: dict[str, keras.layers.Layer] = {}

    def __call__(self, x: KerasTensor) -> KerasTensor:
        outputs: dict[str, KerasTensor] = {}
        activated: dict[str, KerasTensor] = {"": x}
        for application in self.polynomial.applications:  # inputs first
            letter, inner = application[0], application[1:]
            if inner not in activated:
                relu = keras.layers.ReLU(name=f"{self.name}_{inner.lower()}_relu")
                activated[inner] = relu(outputs[inner])
            outputs[application] = self._apply(letter, activated[inner], application)
        residual_sum = StochasticResidualScaling(
            scale=self.scale,
            survival_probability=self.survival_probability,
            active=False,
            # The name says which terms are summed: weights files are checked by names.
            name="_".join([self.name, "sum", *self.polynomial.terms]).lower(),
        )
        y = residual_sum([x, *(outputs[term] for term in self.polynomial.terms)])
        return keras.layers.ReLU(name=f"{self.name}_relu")(y)

    def _apply(self, letter: str, x: KerasTensor, application: str) -> KerasTensor:
        """Applies the block of `letter` to `x`, and projects back to the channels of `x`; without the last ReLU."""
        operator, name = f"{self.name}_{letter.lower()}", f"{self.name}_{application.lower()}"
        y = mixed(x, BLOCKS[self.stage], width=self.width, name=name, operator=operator, layer_of=self._layer_of)
        projection = f"{operator if self.share_projection else name}_projection"
        conv = self._layer_of(
            projection,
            lambda: convolution(x.shape[channel_axis()], ConvSpec(x.shape[channel_axis()], (1, 1)), projection),
        )
        return batch_normalization(f"{name}_projection_bn")(conv(y))

    def _layer_of(self, name: str, make: Callable[[], keras.layers.Layer]) -> keras.layers.Layer:
        if name not in self._shared:
            self._shared[name] = make()
        return self._shared[name]
