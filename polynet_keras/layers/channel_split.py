"""A layer that splits a tensor along its channels, with sizes that every exporter knows."""

from collections.abc import Sequence

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="polynet_keras")
class ChannelSplit(keras.layers.Layer):
    """Splits the channels of a 4-D tensor into parts.

    `keras.ops.split` splits tensors too, but on PyTorch it makes the sizes a tensor, which `torch.export` cannot
    trace.

    Args:
        sizes: channels of each part; their sum is the number of channels.
        axis: axis of the channels: -1 or 1.

    Call returns:
        List of tensors, one per part.

    Raises:
        ValueError: the sizes do not add up to the channels of the input.

    Examples:
        >>> first, second = ChannelSplit([1, 2])(np.zeros((1, 4, 4, 3)))
        >>> tuple(first.shape), tuple(second.shape)
        ((1, 4, 4, 1), (1, 4, 4, 2))
    """

    def __init__(self, sizes: Sequence[int], axis: int = -1, **kwargs):
        super().__init__(**kwargs)
        self.sizes = [int(size) for size in sizes]
        self.axis = axis

    def build(self, input_shape):
        if sum(self.sizes) != input_shape[self.axis]:
            raise ValueError(
                f"{self.name}: sizes={', '.join(map(str, self.sizes))} add up to {sum(self.sizes)}; the input has "
                f"{input_shape[self.axis]} "
                "channels"
            )

    def call(self, inputs):
        ends = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes))]
        if keras.backend.backend() != "torch":
            return ops.split(inputs, ends[:-1], axis=self.axis)
        # A Keras tensor is a PyTorch tensor here.
        return [inputs.narrow(self.axis, end - size, size) for size, end in zip(self.sizes, ends, strict=True)]

    def compute_output_spec(self, inputs):
        shapes = [list(inputs.shape) for _ in self.sizes]
        for shape, size in zip(shapes, self.sizes, strict=True):
            shape[self.axis] = size
        return [keras.KerasTensor(shape, dtype=self.compute_dtype) for shape in shapes]

    def get_config(self):
        return {**super().get_config(), "sizes": self.sizes, "axis": self.axis}
