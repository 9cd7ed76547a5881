"""A SavedModel with two signatures: from preprocessed images to probabilities, and from image files to names.

* `serving_default`: `image`, float32 (batch, image_size, image_size, channels), preprocessed by the protocol, to
  `predictions`, float32 (batch, classes).
* `classify`: see `deployment.classify_signature`.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from polynet_keras.deployment.formats.format import Format, Runner

if TYPE_CHECKING:
    import keras

    from polynet_keras.evaluation.loading import TrainedModel


def _write(path: Path, model: "keras.Model", trained: "TrainedModel", *_: object) -> None:
    import keras
    import tensorflow as tf

    from polynet_keras.deployment.classify_signature import classifier

    def predict(image):
        return {"predictions": model(image, training=False)}

    archive = keras.export.ExportArchive()
    archive.track(model)
    images = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="image")
    archive.add_endpoint("serving_default", predict, [images])
    archive.add_endpoint("classify", classifier(model, trained), [tf.TensorSpec((None,), tf.string, name="encoded")])
    archive.write_out(str(path.parent), verbose=False)


def _load(path: Path, threads: int | None) -> Runner:
    import tensorflow as tf

    if threads:
        with contextlib.suppress(RuntimeError):  # TensorFlow has begun already, with the threads that it has
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    loaded = tf.saved_model.load(str(path.parent))

    def run(images):
        # Asked for each time: a signature does not keep the object alive that it is of.
        return loaded.signatures["serving_default"](image=tf.constant(images))["predictions"].numpy()

    return run


def _check(path: Path, trained: "TrainedModel") -> None:
    from polynet_keras.deployment.classify_signature import compare_classify

    compare_classify(path.parent, trained)


SAVED_MODEL = Format("saved_model", "saved_model.pb", {"float32": ()}, _write, _load, _check)
