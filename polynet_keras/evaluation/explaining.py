"""Explanations of a classifier: how strongly each place of an image supports a class."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from polynet_keras.basics.checks import check_choice, check_integer
from polynet_keras.basics.names import number_of, size_text
from polynet_keras.data.pixels import resized
from polynet_keras.engine.gradients import gradient, without_gradients
from polynet_keras.evaluation.cut_model import CutModel
from polynet_keras.evaluation.explanation_methods import METHODS, OCCLUSION
from polynet_keras.evaluation.loading import TrainedModel, trained
from polynet_keras.evaluation.occlusion import occlusion
from polynet_keras.evaluation.outputs import gives_logits

BATCH = 8
"""Images per gradient computation."""


def batch_size(images: int) -> int:
    """Returns a batch size that makes all batches equally large: JAX compiles each size anew."""
    return -(-images // max(1, -(-images // BATCH)))


class View(NamedTuple):
    """One kind of explanation: the arguments of `explain`."""

    stage: str | None
    method: str


def explain(
    model: keras.Model | TrainedModel | str | os.PathLike,
    images: np.ndarray,
    class_index: int | Sequence[int] | None = None,
    stage: str | None = None,
    method: str = "grad-cam",
) -> np.ndarray:
    """Shows where in an image a classifier finds evidence for a class.

    * `"grad-cam"` weights each channel of a stage's output by the mean of the class's gradient over the map, adds the
      channels up, and keeps what is above zero (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
      Gradient-based Localization", ICCV 2017, https://arxiv.org/abs/1610.02391).
    * `"grad-cam++"` uses a weighted sum of the positive gradients alone, which shows several objects of one class
      better (Chattopadhay et al., "Grad-CAM++: Generalized Gradient-Based Visual Explanations for Deep Convolutional
      Networks", WACV 2018, https://arxiv.org/abs/1710.11063; the class's score is its exponential there).
    * `"occlusion"` needs no gradient, and no stage. A square of the image's mean colour, a quarter of the image wide,
      hides one place after the other; the map shows how much the class's probability falls (Zeiler, Fergus,
      "Visualizing and Understanding Convolutional Networks", ECCV 2014, https://arxiv.org/abs/1311.2901). The model
      runs 50 times for each image.

    The gradient is that of the class's logit, its score before the softmax. The softmax at the end of the model is
    removed, wherever it is (a layer, an activation of the last layer, the end of a nested model). A model without
    softmax outputs logits itself. For a model of two classes with one output, the logits are minus half and half of its
    logit.

    Gradients need a functional or sequential Keras model, fused or not, on the backend TensorFlow, JAX or PyTorch. For
    an export, use occlusion.

    Args:
        model: a name for `polynet_keras.load_model`, the model that it returned, or a Keras classifier.
        images: float array (batch, height, width, channels), preprocessed by the model's `preprocessing`; with
            channels first if that is Keras's data format.
        class_index: the class to explain, or one for each image; by default the class that the model predicts for each
            image.
        stage: the stage whose output is explained: for a PolyNet `stem`, `stage_a`, `reduction_a`, `stage_b`,
            `reduction_b` or `stage_c`, at its end; for any network, the name of a layer whose output is a map. Later
            stages know more about the class, and are coarser. The default is the last layer that everything passes
            through with a map of at least 5 by 5 places: stage C for images of 224 px and more, stage B for 131 px.
        method: `"grad-cam"`, `"grad-cam++"` or `"occlusion"`.

    Returns:
        float32 array (batch, height, width): a map of each image, from 0 to 1, its largest value; all 0 if nothing
        supports the class. Maps are enlarged bilinearly. They show where, not how much: each image has its own scale.

    Raises:
        ValueError: the method or stage is unknown, the class or images do not fit the model, or the model is of
            another kind.
        OSError: a published checkpoint cannot be fetched.

    Examples:
        >>> from polynet_keras.data import read_image
        >>> images = trained.preprocessing(read_image(photos / "cat" / "1.jpg", 3))[np.newaxis]
        >>> maps = explain(trained, images)
        >>> maps.shape, float(maps.max())
        ((1, 16, 16), 1.0)
    """
    check_choice("method", method, METHODS)
    if not isinstance(model, keras.Model):
        model = trained(model)
    return explained(model, images, class_index, [View(stage, method)])[1][0]


def explained(
    model: keras.Model | TrainedModel,
    images: np.ndarray,
    class_index: int | Sequence[int] | None,
    views: Sequence[View],
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns the model's probabilities, float32 (batch, classes), and the maps of `explain` for each view.

    Raises:
        ValueError: as `explain`, except for an unknown method.
    """
    classes, shape = _classes_and_shape(model)
    images = _checked_images(images, shape)
    chosen = _checked_classes(class_index, len(images), classes)
    first = 2 if keras.config.image_data_format() == "channels_first" else 1
    sides = images.shape[first : first + 2]
    cuts = {view.stage: CutModel(_network(model), view.stage, sides) for view in views if view.method != OCCLUSION}
    probabilities = None
    maps: dict[View, np.ndarray] = {}
    for stage, cut in cuts.items():
        size = batch_size(len(images))
        batches = [slice(start, start + size) for start in range(0, len(images), size)]
        parts = [_looked_at(cut, images[part], None if chosen is None else chosen[part], views) for part in batches]
        probabilities = np.concatenate([found for found, _ in parts])
        for view in dict.fromkeys(view for view in views if view.stage == stage and view.method in CAMS):
            maps[view] = np.concatenate([of_view[view.method] for _, of_view in parts])
    if any(view.method == OCCLUSION for view in views):
        probabilities, found = occlusion(_probabilities(model), images, chosen)
        maps |= {view: found for view in views if view.method == OCCLUSION}
    assert probabilities is not None
    return probabilities, [_enlarged(maps[view], sides) for view in views]


def _looked_at(
    cut: CutModel, images: np.ndarray, chosen: np.ndarray | None, views: Sequence[View]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns probabilities of a batch, and maps by method, in the layer's size."""
    with without_gradients():
        activations, values = cut.before(images)

    def score(activations):
        logits = cut.after(activations, values)
        wanted = ops.argmax(logits, axis=-1) if chosen is None else ops.convert_to_tensor(chosen)
        # In inference an image's logits are its own: the gradient of their sum is that of each.
        return ops.sum(logits * ops.one_hot(wanted, logits.shape[-1], dtype=logits.dtype)), ops.stop_gradient(logits)

    logits, gradients = gradient(score, activations)
    a, g = (ops.convert_to_numpy(ops.cast(tensor, "float32")).astype("float64") for tensor in (activations, gradients))
    if keras.config.image_data_format() == "channels_first":
        a, g = np.moveaxis(a, 1, -1), np.moveaxis(g, 1, -1)
    methods = {view.method for view in views} & CAMS.keys()
    return _softmax(ops.convert_to_numpy(logits)), {method: CAMS[method](a, g) for method in methods}


def grad_cam(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Returns maps (batch, height, width) from float64 arrays (batch, height, width, channels)."""
    return np.maximum(np.einsum("bhwc,bc->bhw", activations, gradients.mean(axis=(1, 2))), 0)


def grad_cam_plus_plus(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Returns maps as `grad_cam` does, by Grad-CAM++.

    All derivatives of an exponential have the factor exp(score), which is the same for all places.
    """
    squares = gradients**2
    bottom = 2 * squares + activations.sum(axis=(1, 2), keepdims=True) * squares * gradients
    shares = np.divide(squares, bottom, out=np.zeros_like(squares), where=bottom != 0)
    weights = (shares * np.maximum(gradients, 0)).sum(axis=(1, 2))
    return np.maximum(np.einsum("bhwc,bc->bhw", activations, weights), 0)


CAMS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "grad-cam": grad_cam,
    "grad-cam++": grad_cam_plus_plus,
}


def _enlarged(maps: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Enlarges maps to the images' size, each with 1 as its largest value."""
    height, width = size
    peaks = maps.max(axis=(1, 2), keepdims=True)
    maps = np.divide(maps, peaks, out=np.zeros_like(maps), where=peaks > 0)
    large = np.stack([resized(one[..., None], (height, width), "bilinear", False)[..., 0] for one in maps])
    peaks = large.max(axis=(1, 2), keepdims=True)
    return np.divide(large, peaks, out=np.zeros_like(large), where=peaks > 0)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _network(model: keras.Model | TrainedModel) -> keras.Model:
    return model if isinstance(model, keras.Model) else model.network


def _probabilities(model: keras.Model | TrainedModel) -> Callable[[np.ndarray], np.ndarray]:
    if isinstance(model, TrainedModel):
        return model.probabilities
    run, logits = model.predict_on_batch, gives_logits(model)
    return lambda images: _softmax(run(images)) if logits else run(images)


def _classes_and_shape(model: keras.Model | TrainedModel) -> tuple[int, Sequence[int | None]]:
    """Returns the number of a model's classes, and the shape of its images."""
    first = keras.config.image_data_format() == "channels_first"
    if isinstance(model, TrainedModel):
        side, channels = model.preprocessing.image_size, model.preprocessing.channels
        return len(model.class_names), (channels, side, side) if first else (side, side, channels)
    shapes: list[Any] = [getattr(model, name, None) for name in ("input_shape", "output_shape")]
    if [len(shape) if isinstance(shape, tuple) else 0 for shape in shapes] != [4, 2]:
        raise ValueError(
            f"model {model.name!r} must be a functional or sequential Keras model of images, with one output: a value "
            "for each class"
        )
    return shapes[1][-1], shapes[0][1:]


def _checked_images(images: np.ndarray, size: Sequence[int | None]) -> np.ndarray:
    images = np.asarray(images)
    fits = images.ndim == 4 and all(want in (None, got) for want, got in zip(size, images.shape[1:], strict=True))
    if not fits or not len(images):
        raise ValueError(
            f"images are {size_text(images.shape)}; expected a batch of at least one, prepared for the model: batch x "
            f"{size_text(size)}"
        )
    return images


def _checked_classes(class_index: int | Sequence[int] | None, images: int, classes: int) -> np.ndarray | None:
    if class_index is None:
        return None
    indices = [class_index] * images if np.ndim(class_index) == 0 else list(class_index)  # type: ignore[arg-type]
    if len(indices) != images:
        raise ValueError(
            f"class_index names {number_of(len(indices), 'class', 'classes')} for {number_of(images, 'image')}; name "
            "one for all, or for each"
        )
    for index in indices:
        check_integer("class_index", index, 0, classes - 1)
    return np.array(indices, "int32")
