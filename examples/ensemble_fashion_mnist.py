"""Trains three small nets on Fashion-MNIST, each with an input size and preprocessing of its own, and mixes them.

    python examples/ensemble_fashion_mnist.py

takes seven minutes on two cores (extra `data`), reads the images of Debian's package `dataset-fashion-mnist`, or lets
Keras fetch them, and prints, up to noise,

    uniform weights
      polynet, weight 0.33          8839 of 10000 right, loss 0.319
      inception_resnet, weight 0.33 8746 of 10000 right, loss 0.369
      resnet, weight 0.33           8790 of 10000 right, loss 0.338
      mixture                       8941 of 10000 right, loss 0.292
      gain over polynet: 1.02 points, 95 % interval 0.58 to 1.46
    weights fitted on 2000 other images
      polynet, weight 0.47          8839 of 10000 right, loss 0.319
      inception_resnet, weight 0.33 8746 of 10000 right, loss 0.369
      resnet, weight 0.20           8790 of 10000 right, loss 0.338
      mixture                       8951 of 10000 right, loss 0.290
      gain over polynet: 1.12 points, 95 % interval 0.72 to 1.53

The three are about equally good. Beside a ResNet of twice the channels, right for 8962, and a PolyNet that was right
for 8471, the uniform mixture was right for 8947, fewer than the ResNet; with fitted weights it was right for 9008.
"""

import keras
import numpy as np
from keras import layers

from polynet_keras import InceptionResNet, PolyNet
from polynet_keras.data import Preprocessing, open_source, training_batches
from polynet_keras.evaluation import TrainedModel, evaluate_ensemble, score

BATCH_SIZE = 64
TRAINING, FITTING = 12_000, 2_000  # images: to train on, and to fit the weights on


def polynet():
    return PolyNet(
        weights=None,
        structure="1 x [2-way] | 1 x [poly-2] | 1 x [poly-2]",
        width=0.15,
        residual_scale=0.3,
        input_shape=(75, 75, 1),
        classes=10,
    )


def inception_resnet():
    return InceptionResNet((1, 1, 1), width=0.1, residual_scale=0.3, input_shape=(79, 79, 1), classes=10)


def resnet():
    """Plain Keras layers: three stages of one residual unit each."""
    image = keras.Input((32, 32, 1))
    x = layers.Conv2D(16, 3, padding="same")(image)
    for channels in (16, 32, 64):
        shortcut = layers.Conv2D(channels, 1, strides=2)(x)
        for strides in (2, 1):
            x = layers.Activation("relu")(layers.BatchNormalization()(x))
            x = layers.Conv2D(channels, 3, strides=strides, padding="same")(x)
        x = layers.Add()([x, shortcut])
    x = layers.GlobalAveragePooling2D()(layers.Activation("relu")(layers.BatchNormalization()(x)))
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def train(name, build, preprocessing, epochs, examples):
    keras.utils.set_random_seed(0)
    model = build()
    batches = training_batches(examples, preprocessing, BATCH_SIZE, seed=0)
    rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * batches.steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(batches.dataset, steps_per_epoch=batches.steps, epochs=epochs, shuffle=False, verbose=0)
    return TrainedModel(name, model, preprocessing, examples.class_names)


def show(what, report):
    print(what)
    rows = [(f"{member.name}, weight {member.weight:.2f}", member.counts) for member in report.members]
    for name, counts in (*rows, ("mixture", report.mixture)):
        print(f"  {name:<29} {counts.top1_hits} of {counts.images} right, loss {counts.loss:.3f}")
    low, high = report.paired.interval()
    print(
        f"  gain over {report.best.name}: {100 * report.gain:.2f} points, "
        f"95 % interval {100 * low:.2f} to {100 * high:.2f}"
    )


def main():
    source = open_source("fashion_mnist", seed=0)
    order = np.random.default_rng(0).permutation(len(source.training))
    training = source.training.subset(order[:TRAINING], "to train on")
    fitting = source.training.subset(order[TRAINING : TRAINING + FITTING], "to fit on")
    models = [
        train("polynet", polynet, Preprocessing(75, 86, (0.5,), (0.5,)), 10, training),
        train("inception_resnet", inception_resnet, Preprocessing(79, 79, (0.286,), (0.353,)), 8, training),
        train("resnet", resnet, Preprocessing(32, 36, (0.0,), (1.0,)), 8, training),
    ]
    scores, held_out = ([score(model, part, batch_size=250) for model in models] for part in (source.held_out, fitting))
    show("uniform weights", evaluate_ensemble(scores))
    show(f"weights fitted on {FITTING} other images", evaluate_ensemble(scores, "fit", held_out))


if __name__ == "__main__":
    main()
