"""Counts how many of Fashion-MNIST's test images the checkpoint of this repository gets right.

    python examples/evaluate_fashion_mnist.py

takes half a minute on two cores (extra `data`), reads the 10,000 images of Debian's package `dataset-fashion-mnist`, or
lets Keras fetch them, and prints

    fashion_mnist: 9286 of 10000 right, error 7.14 %
"""

from polynet_keras import PolyNet
from polynet_keras.data import evaluation_batches, open_source, validation_data
from polynet_keras.pretrained import published

checkpoint = published("fashion_mnist")
model = PolyNet(weights=checkpoint.name, **checkpoint.network)
held_out = open_source("fashion_mnist", seed=0).held_out
right = count = 0
for images, labels in validation_data(evaluation_batches(held_out, checkpoint.preprocessing, batch_size=250)):
    right += int((model.predict_on_batch(images).argmax(axis=1) == labels.numpy()).sum())
    count += len(labels)
print(f"{checkpoint.name}: {right} of {count} right, error {100 * (1 - right / count):.2f} %")
