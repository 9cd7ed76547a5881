"""PolyNet and Inception-ResNet in the form of `keras.applications`: one function builds the network."""

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, layers

from polynet_keras.basics.checks import check_flag, check_integer, check_number
from polynet_keras.basics.names import size_text
from polynet_keras.data.imagenet import imagenet_classes
from polynet_keras.data.pixels import normalize, warn_of_impossible_range
from polynet_keras.data.protocol import IMAGENET_MEAN, IMAGENET_STD
from polynet_keras.engine.network import Network
from polynet_keras.layers.variable_names import plain_variable_names
from polynet_keras.models.arguments import check_image_shape, check_remat
from polynet_keras.models.blocks import channel_axis, reduction, stem
from polynet_keras.models.poly_inception import PolyInception
from polynet_keras.models.residual_scale import scales_and_survival
from polynet_keras.models.structure import STAGES, Structure
from polynet_keras.pretrained.conversion import load_weights_file
from polynet_keras.pretrained.open_file import Source
from polynet_keras.pretrained.registry import find_checkpoint
from polynet_keras.pretrained.store import opened_weights

DEFAULT_SIZE = 331


@plain_variable_names()
def PolyNet(
    include_top: bool = True,
    weights: str | os.PathLike | None = "imagenet",
    input_tensor: KerasTensor | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | Callable | None = "softmax",
    name: str = "polynet",
    *,
    structure: str | Structure = "polynet-g5",
    width: float = 1.0,
    residual_scale: float | Sequence[float] | None = None,
    share_projection: bool = False,
    remat: str = "none",
) -> keras.Model:
    """Instantiates a PolyNet.

    Reference: Zhang, Li, Loy, Lin, "PolyNet: A Pursuit of Structural Diversity in Very Deep Networks", CVPR 2017,
    https://arxiv.org/abs/1611.05725. The default is the authors' "G5" or Very Deep PolyNet, as they released it.

    Pass images through `polynet_keras.preprocess_input` first.

    Args:
        include_top: whether to include the classifier at the top of the network.
        weights: `None` (random initialization); the name of a published checkpoint (`"imagenet"`, and those that
            `polynet weights` lists), which is fetched once and verified; or the path of a weights file of the same
            network: `.weights.h5` or `.keras`, or a published file of tf2cv, pretrainedmodels or pytorchcv. Its
            residual factors replace `residual_scale`. If `classes` differs from the file's number of classes, the
            classifier keeps its random initialization, and the log says so.
        input_tensor: optional Keras tensor to use as the image input; its channels come from it.
        input_shape: optional `(height, width, channels)`, or `(channels, height, width)` under the data format
            `channels_first`; 1, 3 or 4 channels, each side at least 75 or `None`. The default is `(331, 331, 3)`, or
            `(None, None, 3)` without the top.
        pooling: without the top, `None` (the 4-D feature map), `"avg"` or `"max"` (a 2-D tensor).
        classes: number of classes of the classifier.
        classifier_activation: activation of the classifier; `None` returns the logits.
        name: name of the model.
        structure: a name of `list_structures()`, or a notation: three stages split by `|`, each `n x [module, ...]`. A
            module is `ir`, `poly-2`, `poly-3`, `mpoly-2`, `mpoly-3`, `2-way`, `3-way` or a polynomial such as
            `I + F + GF`.
        width: multiplier of every channel count; the product is rounded to a multiple of 8. 1.0 is the paper's width.
        residual_scale: the factor on the residual paths. `None` uses the released network's factors: for module l of
            L, the survival probability 1 − 0.3·l/(L−1) of stochastic depth. A number applies to every module (the
            authors advise at most 0.3 to train a very deep network from scratch). A pair `(first, last)` is linear in
            depth; a longer sequence has one value per module. A weights file brings its own factors.
        share_projection: whether the orders of a polynomial share the convolution of their projection too, as in the
            paper's formula. The released network does not share it.
        remat: the activations that the backward pass recomputes instead of keeping them in memory: `"none"`,
            `"stage_b"` (the residual units of the stage that holds half of all activations) or `"all"` (all residual
            units).

    Returns:
        A functional `keras.Model` of the class `polynet_keras.engine.network.Network`; its data format is
        `keras.config.image_data_format()`. Its stochastic paths (`layers.StochasticResidualScaling`) are present but
        inactive.

    Raises:
        ValueError: an argument is out of range (checked before any layer is built); or the weights file is missing,
            unreadable, of another network, or not the published one.
        OSError: the published file cannot be fetched.

    Examples:
        >>> structure = "1 x [2-way] | 1 x [poly-3] | 1 x [ir]"
        >>> model = PolyNet(weights=None, structure=structure, width=0.1, input_shape=(75, 75, 3), classes=10)
        >>> model.predict_on_batch(np.zeros((2, 75, 75, 3))).shape
        (2, 10)
    """
    structure = Structure.parse(structure)
    _check_arguments(include_top, pooling, classes, classifier_activation, name, width, share_projection)
    scales, survival = scales_and_survival(residual_scale, structure.module_count)
    check_remat(remat)
    checkpoint = find_checkpoint(weights)
    image = _image_input(input_tensor, input_shape, include_top)
    with contextlib.ExitStack() as stack:
        source: Source | None = weights
        if checkpoint:
            checkpoint.check_network(structure, width, image.shape[channel_axis()], share_projection)
            whole = functools.partial(PolyNet, weights=None, **checkpoint.network)
            # The file stays open, as it was verified, until it is read.
            source = stack.enter_context(opened_weights(checkpoint, build=whole))

        x = stem(image, width=width)  # 39 × 39 × 384, for an image of 331 px
        module = 0
        for stage, polynomials in zip(STAGES, structure.stages, strict=True):
            for number, polynomial in enumerate(polynomials, 1):
                x = PolyInception(
                    polynomial,
                    stage,
                    scale=scales[module],
                    survival_probability=survival[module],
                    share_projection=share_projection,
                    width=width,
                    name=f"stage_{stage}_{number:02d}",
                )(x)
                module += 1
            if stage != STAGES[-1]:
                x = reduction(x, stage, width=width)  # 19 × 19 × 1152, then 9 × 9 × 2048

        if include_top:
            x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
            x = layers.Dense(
                int(classes), activation=classifier_activation, dtype=_classifier_dtype(), name="predictions"
            )(x)
        elif pooling == "avg":
            x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        elif pooling == "max":
            x = layers.GlobalMaxPooling2D(name="max_pool")(x)

        inputs = image if input_tensor is None else keras.utils.get_source_inputs(input_tensor)
        model = Network(inputs, x, name=name)
        model.remat = remat
        model.structure = structure
        if source is not None:
            load_weights_file(model, source)
    return model


def InceptionResNet(
    depths: Sequence[int] = (5, 10, 5),
    include_top: bool = True,
    weights: str | os.PathLike | None = None,
    input_tensor: KerasTensor | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | Callable | None = "softmax",
    name: str = "inception_resnet",
    *,
    width: float = 1.0,
    residual_scale: float | Sequence[float] | None = None,
    remat: str = "none",
) -> keras.Model:
    """Instantiates the Inception-ResNet with PolyNet's trunk, the network that PolyNets grow from.

    This is the "IR a-b-c" of the poster's table: every residual unit is `I + F`. It is not
    `keras.applications.InceptionResNetV2`, whose stem and channel counts differ.

    Args:
        depths: number of residual units in stage A, B and C.
        weights: `None` (random initialization) or a weights file: no checkpoint of these networks has been published.

    The other arguments, the return value and the exceptions are those of `PolyNet`.

    Examples:
        >>> model = InceptionResNet((1, 1, 1), width=0.25, classes=10)
        >>> model.structure
        '1 x [ir] | 1 x [ir] | 1 x [ir]'
        >>> model.output_shape
        (None, 10)
    """
    return PolyNet(
        include_top,
        weights,
        input_tensor,
        input_shape,
        pooling,
        classes,
        classifier_activation,
        name,
        structure=Structure.inception_resnet(depths),
        width=width,
        residual_scale=residual_scale,
        remat=remat,
    )


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Scales RGB images from 0 to 255 to [0, 1], and normalizes them by ImageNet's mean and deviation.

    Unlike `keras.applications`, this function never changes a NumPy input in place. It warns, once per calling line, of
    values that cannot be in the range 0 to 255 (already scaled to [0, 1], or normalized).

    Args:
        x: array or tensor, 3-D or 4-D, 3 channels, RGB, values in [0, 255], of any integer or float dtype.
        data_format: `"channels_last"`, `"channels_first"`, or `None` for `keras.config.image_data_format()`.

    Returns:
        The preprocessed images, of the type of `x` (NumPy array or backend tensor). Floats keep their dtype; integers
        become `keras.config.floatx()`.

    Raises:
        ValueError: `x` has another number of dimensions or channels, or the data format is unknown.

    Examples:
        >>> images = np.array([[[255.0, 0.0, 127.0]]])  # one pixel
        >>> preprocess_input(images).round(2).tolist()
        [[[2.25, -2.04, 0.41]]]
    """
    warn_of_impossible_range(x)
    return normalize(x, IMAGENET_MEAN, IMAGENET_STD, data_format)


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Returns the `top` ImageNet classes of each prediction, best first, as `(WordNet id, name, score)`.

    The names are Keras's own list; they come with this package, and nothing is downloaded.

    Args:
        preds: array of shape (batch, 1000).
        top: number of classes per prediction.

    Raises:
        ValueError: `preds` has another shape, or `top` is not an integer from 1 to 1000.

    Examples:
        >>> decode_predictions(np.eye(1000)[[1, 285]], top=1)
        [[('n01443537', 'goldfish', 1.0)], [('n02124075', 'Egyptian_cat', 1.0)]]
    """
    check_integer("top", top, 1, 1000)
    scores = np.asarray(keras.ops.convert_to_numpy(preds))
    if scores.ndim != 2 or scores.shape[1] != 1000:
        raise ValueError(
            "preds must be predictions of the 1000 classes of ImageNet, of the shape (batch, 1000); got "
            f"{size_text(scores.shape)}"
        )
    classes = imagenet_classes()
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [[(*classes[i], float(row[i])) for i in order] for row, order in zip(scores, best, strict=True)]


def _check_arguments(include_top, pooling, classes, classifier_activation, name, width, share_projection) -> None:
    for argument, value in (("include_top", include_top), ("share_projection", share_projection)):
        check_flag(argument, bool(value) if isinstance(value, np.bool_) else value)
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"name={name!r} must be a text without '/'")
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"pooling={pooling!r} must be None, 'avg' or 'max'")
    check_integer("classes", classes, 1)
    check_number("width", width, above=0)
    try:
        keras.activations.get(classifier_activation)
    except ValueError:
        raise ValueError(
            f"classifier_activation={classifier_activation!r} must be None (logits), the name of a Keras activation "
            "such as 'softmax', or a function"
        ) from None


def _classifier_dtype() -> str | None:
    """Returns float32 under a mixed policy: bfloat16's 8 bits cannot distinguish the best of 1000 probabilities."""
    return "float32" if keras.config.dtype_policy().compute_dtype in ("float16", "bfloat16") else None


def _image_input(input_tensor, input_shape, include_top: bool) -> KerasTensor:
    """Returns the symbolic image after checking the arguments."""
    order = _with_channels(("height", "width"), "channels")
    if input_shape is not None:
        if not isinstance(input_shape, (tuple, list)):
            raise ValueError(f"input_shape={input_shape!r} must be a tuple ({', '.join(order)})")
        check_image_shape("input_shape", tuple(input_shape), order)
        # NumPy's integers would be in the model's config, which is written as JSON.
        input_shape = tuple(size if size is None else int(size) for size in input_shape)
    if input_tensor is None:
        side = DEFAULT_SIZE if include_top else None
        return keras.Input(input_shape or _with_channels((side, side), 3), name="image")
    if not isinstance(input_tensor, KerasTensor):
        raise ValueError(
            f"input_tensor must be a Keras tensor such as keras.Input(...); got {type(input_tensor).__name__}"
        )
    shape = tuple(input_tensor.shape[1:])
    if input_shape is not None and input_shape != shape:
        raise ValueError(f"input_shape={size_text(input_shape)} is not that of input_tensor, {size_text(shape)}")
    check_image_shape("input_tensor", shape, order)
    return input_tensor


def _with_channels(size: tuple, channels) -> tuple:
    """Returns sides and channels in the order of the data format."""
    return (channels, *size) if channel_axis() == 1 else (*size, channels)
