"""What a classifier sees in an image: how much each place of it speaks for a class."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from polynet_keras.basics.checks import check_choice, check_integer
from polynet_keras.basics.names import size_text
from polynet_keras.data.pixels import resized
from polynet_keras.engine.gradients import gradient, without_gradients
from polynet_keras.evaluation.cut_model import CutModel
from polynet_keras.evaluation.explanation_methods import METHODS, OCCLUSION
from polynet_keras.evaluation.loading import TrainedModel, trained
from polynet_keras.evaluation.occlusion import occlusion
from polynet_keras.evaluation.outputs import gives_logits

BATCH = 8
"""Images whose gradient is taken at once."""


def batch_size(images: int) -> int:
    """As many at once that the last batch is as large as the others: JAX compiles each size anew."""
    return -(-images // max(1, -(-images // BATCH)))


class View(NamedTuple):
    """A way to look at an image: the arguments of `explain`."""

    stage: str | None
    method: str


def explain(
    model: keras.Model | TrainedModel | str | os.PathLike,
    images: np.ndarray,
    class_index: int | Sequence[int] | None = None,
    stage: str | None = None,
    method: str = "grad-cam",
) -> np.ndarray:
    """Where in an image a classifier finds what speaks for a class.

    * `"grad-cam"` weights each channel of a stage's output by the mean of the class's gradient over the map, adds the
      channels up, and keeps what is above zero (Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
      Gradient-based Localization", ICCV 2017, https://arxiv.org/abs/1610.02391).
    * `"grad-cam++"` takes a weighted sum of the positive gradients alone, which shows several objects of one class
      better (Chattopadhay et al., "Grad-CAM++: Generalized Gradient-Based Visual Explanations for Deep Convolutional
      Networks", WACV 2018, https://arxiv.org/abs/1710.11063; the class's score is its exponential there).
    * `"occlusion"` takes no gradient, and no stage: a square of the image's mean colour, as wide as a quarter of the
      image, hides one place after the other, and the map is by how much the class's probability falls (Zeiler, Fergus,
      "Visualizing and Understanding Convolutional Networks", ECCV 2014, https://arxiv.org/abs/1311.2901). The model
      runs 50 times for each image.

    The gradient is that of the class's logit, its score before the softmax: the softmax at the end of the model is left
    out, wherever it stands (a layer, an activation of the last layer, the end of a model inside). A model without one
    gives logits itself. Of a model that tells two classes by one number, the logits are half of it, and minus half.

    Gradients need a functional or sequential Keras model, on any of Keras's backends TensorFlow, JAX and PyTorch, fused
    or not; an export can be looked at by occlusion.

    Args:
        model: what `polynet_keras.load_model` returns, a name that it takes, or a Keras classifier.
        images: float array (batch, height, width, channels), prepared for the model as its `preprocessing` does; with
            channels first where Keras has them so.
        class_index: the class to explain, or one for each image; by default the class that the model gives each image.
        stage: whose output is looked at: of a PolyNet `stem`, `stage_a`, `reduction_a`, `stage_b`, `reduction_b` or
            `stage_c`, at its end; of this or any other network the name of a layer that puts out a map. Later ones
            know more of the class, and are coarser. By default the last layer that everything goes through and whose
            map has at least 5 by 5 places: stage C of an image of 224 px and more, stage B of one of 131 px.
        method: `"grad-cam"`, `"grad-cam++"` or `"occlusion"`.

    Returns:
        float32 array (batch, height, width): a map of each image, from 0 to 1, its largest value; all 0 where nothing
        speaks for the class. Maps are enlarged bilinearly. They say where, not how much: each image has its own scale.

    Raises:
        ValueError: an unknown method or stage, a class or images that are not the model's, or a model of another kind.
        OSError: a published checkpoint cannot be fetched.
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
    """The model's probabilities, float32 (batch, classes), and what `explain` returns for each view.

    Raises:
        ValueError: as `explain`, but for an unknown method.
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
    """Probabilities of a batch, and maps by method, of the layer's size."""
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
    """Maps (batch, height, width) of float64 arrays (batch, height, width, channels)."""
    return np.maximum(np.einsum("bhwc,bc->bhw", activations, gradients.mean(axis=(1, 2))), 0)


def grad_cam_plus_plus(activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """As `grad_cam`. Of an exponential all derivatives have the factor exp(score), which is the same for all places."""
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
    """Maps of the images' size, each with 1 as its largest value."""
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
    """How many classes a model has, and the shape of its images."""
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
        raise ValueError(f"class_index names {len(indices)} classes for {images} images; name one for all, or for each")
    for index in indices:
        check_integer("class_index", index, 0, classes - 1)
    return np.array(indices, "int32")
