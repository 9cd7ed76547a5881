"""Distillation: training a model towards another one's predictions for the same images.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015, https://arxiv.org/abs/1503.02531.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from polynet_keras.data.protocol import Preprocessing
from polynet_keras.engine import stand_in
from polynet_keras.evaluation.loading import TrainedModel
from polynet_keras.evaluation.outputs import SMALLEST, logits_model
from polynet_keras.training.recipes.teacher import places_of_classes


def teach(
    model: keras.Model,
    teacher: TrainedModel,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    temperature: float,
    weight: float,
) -> None:
    """Adds a teacher's predictions to a compiled model's training loss.

    Let p be the teacher's probabilities and q the model's, both from logits divided by the temperature T. The loss of
    an image is `(1 - weight) · (its loss so far) + weight · T² · Σ p · log(p / q)`. T² keeps the size of the gradient
    when T changes, as in the paper. Subtracting the teacher's entropy changes no gradient, and lets the loss reach 0.
    The teacher runs in inference mode on the images that the model gets, augmented and mixed.

    The teacher is not part of the model: neither the saved model nor its checkpoints contain it. Evaluation does not
    change.

    Args:
        model: compiled model on TensorFlow or JAX, whose outputs are probabilities (batch, classes).
        teacher: a Keras model that knows all classes by their names. It may take images of another size (they are
            resized bilinearly) and with another normalization.
        class_names: names of the model's classes.
        preprocessing: preprocessing of the model.
        temperature: above 0.
        weight: weight of the teacher, from 0 to 1.

    Raises:
        ValueError: the teacher has other classes or image channels, or is exported.
    """
    theirs = teacher.preprocessing
    if theirs.channels != preprocessing.channels:
        raise ValueError(
            f"teacher={teacher.name!r} takes images of {theirs.channels} channels, and the data have "
            f"{preprocessing.channels}"
        )
    places = places_of_classes(teacher.name, teacher.class_names, class_names)
    network = logits_model(teacher.network)
    network.trainable = False
    as_theirs = _conversion(preprocessing, theirs)
    own, divergence = model.compute_loss, _Divergence(name="divergence", dtype="float32")

    def compute_loss(x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = own(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        if not training:
            return loss
        # Elsewhere there is one replica, which always has examples.
        rows, added = stand_in.filled(x) if keras.backend.backend() == "tensorflow" else (x, None)
        logits = stand_in.emptied(network(as_theirs(rows), training=False), added)
        logits = ops.take(ops.stop_gradient(ops.cast(logits, "float32")), places, axis=-1)
        # The logarithms of the probabilities are logits, too.
        own_logits = ops.log(ops.maximum(ops.cast(y_pred, "float32"), SMALLEST))
        apart = divergence(logits / temperature, own_logits / temperature, sample_weight=sample_weight)
        # Keras leaves a vector of no losses as it is, where a replica is known to have no examples.
        return (1 - weight) * loss + weight * temperature**2 * ops.sum(apart)

    # Keras calls this method in each of its steps, and our distributed step in each replica.
    model.compute_loss = compute_loss


class _Divergence(keras.losses.Loss):
    """Kullback-Leibler divergence of the second logits from the first.

    It is a Keras loss because of the mean over a batch: under a strategy, it is scaled like the model's other losses.
    """

    def call(self, y_true, y_pred):
        p, q = ops.log_softmax(y_true), ops.log_softmax(y_pred)
        return ops.sum(ops.exp(p) * (p - q), axis=-1)


def _conversion(ours: Preprocessing, theirs: Preprocessing) -> Callable[[Any], Any]:
    """Returns a function from a batch prepared for the model to a batch prepared for the teacher."""
    first = keras.config.image_data_format() == "channels_first"

    def of_channels(values: Sequence[float]) -> Any:
        return ops.reshape(ops.convert_to_tensor(values, "float32"), (-1, 1, 1) if first else (-1,))

    def converted(images):
        if (ours.mean, ours.std, ours.channel_order) != (theirs.mean, theirs.std, theirs.channel_order):
            images = images * of_channels(ours.std) + of_channels(ours.mean)
            if ours.channel_order != theirs.channel_order:
                images = ops.flip(images, 1 if first else -1)
            images = (images - of_channels(theirs.mean)) / of_channels(theirs.std)
        if ours.image_size != theirs.image_size:
            images = ops.image.resize(images, (theirs.image_size, theirs.image_size), "bilinear", antialias=True)
        return images

    return converted
