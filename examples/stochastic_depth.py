"""Switches stochastic depth on in the middle of a training run, without a retrace.

    python examples/stochastic_depth.py

trains a small PolyNet on scikit-learn's digits for four epochs (under a minute on two cores, extra `data`), switches
the paths on after the second, with drop rates rising from 0 to 0.2 over depth, and prints for each epoch

    epoch 3: paths active, loss 0.37, held-out accuracy 90.3%, loss function traced 2 times

(the numbers vary a little between machines; the traces, of the first epoch, do not grow). What switches them on when
overfitting emerges is `polynet_keras.training.AdaptiveStochasticDepth`.
"""

import keras

from polynet_keras import PolyNet
from polynet_keras.data import Preprocessing, evaluation_batches, open_source, training_batches, validation_data
from polynet_keras.training import set_drop_rate


class TracedCrossentropy(keras.losses.SparseCategoricalCrossentropy):
    """Counts how often Python runs it: TensorFlow does so only when it traces a function that uses it."""

    traces = 0

    def call(self, y_true, y_pred):
        self.traces += 1
        return super().call(y_true, y_pred)


class SwitchOn(keras.callbacks.Callback):
    """Activates the stochastic paths at the start of an epoch."""

    def __init__(self, epoch: int, drop_rate: float):
        super().__init__()
        self.epoch = epoch
        self.drop_rate = drop_rate

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            set_drop_rate(self.model, self.drop_rate)

    def on_epoch_end(self, epoch, logs=None):
        state = "active" if epoch >= self.epoch else "inactive"
        print(
            f"epoch {epoch + 1}: paths {state}, loss {logs['loss']:.2f}, held-out accuracy {logs['val_accuracy']:.1%}, "
            f"loss function traced {self.model.loss.traces} times"
        )


def main():
    keras.utils.set_random_seed(0)
    source = open_source("digits", seed=0)
    preprocessing = Preprocessing(image_size=75, resize_size=86, mean=(0.5,), std=(0.5,))
    model = PolyNet(
        weights=None,
        structure="1 x [2-way] | 2 x [poly-2] | 1 x [poly-3]",
        width=0.25,
        residual_scale=0.3,
        input_shape=(75, 75, 1),
        classes=10,
    )
    model.compile(keras.optimizers.RMSprop(1e-3), TracedCrossentropy(), metrics=["accuracy"])
    training = training_batches(source.training, preprocessing, batch_size=32, seed=0)
    model.fit(
        training.dataset,
        steps_per_epoch=training.steps,
        validation_data=validation_data(evaluation_batches(source.held_out, preprocessing, batch_size=32)),
        epochs=4,
        shuffle=False,
        verbose=0,
        callbacks=[SwitchOn(epoch=2, drop_rate=0.2)],
    )


if __name__ == "__main__":
    main()
