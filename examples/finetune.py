"""Fine-tunes a published checkpoint on other images, unfreezing more of it from phase to phase.

    python examples/finetune.py PHOTOS imagenet

fine-tunes G5 on a folder with one folder of photographs for each class (the weights may be a file, too). Without
arguments it runs offline in a minute on two cores (extra `data`): the checkpoint that knows clothes learns the ten
digits of scikit-learn, and prints, up to noise,

    new head only: held-out accuracy 89.42%
    stage C too: held-out accuracy 93.59%
    all, the earlier the slower: held-out accuracy 94.43%
    predict with it: polynet predict --model=runs/finetune-20261124-201500 IMAGE...

The normalizations keep the statistics of the checkpoint's images throughout: with those of the digits the last phase
ended at 92.48%, and a few images had losses in the hundreds.
"""

import sys
import time
from pathlib import Path

import keras

from polynet_keras import PolyNet
from polynet_keras.data import evaluation_batches, open_source, training_batches, validation_data
from polynet_keras.pretrained import ModelCard, list_published, published
from polynet_keras.training import Phase, RMSprop, fit_in_phases

BATCH_SIZE = 32
EPOCHS = 4  # of each phase

if len(sys.argv) not in (1, 3):
    sys.exit(f"expected PHOTOS and WEIGHTS, or nothing\n\n{__doc__}")
data, weights = sys.argv[1:] or ("digits", "fashion_mnist")
keras.utils.set_random_seed(0)
checkpoint = published(weights if weights in list_published() else "imagenet")
source = open_source(data, seed=0)
preprocessing = checkpoint.preprocessing
training = training_batches(source.training, preprocessing, BATCH_SIZE, seed=0)
held_out = validation_data(evaluation_batches(source.held_out, preprocessing, BATCH_SIZE))

# Other classes than the checkpoint's: its head is left out, and the new one starts at random.
model = PolyNet(weights=weights, **{**checkpoint.network, "classes": len(source.class_names)})
slower = {"stem": 0.1, "stage_a": 0.2, "reduction_a": 0.2, "stage_b": 0.5, "reduction_b": 0.5}
slow = RMSprop(3e-4, learning_rate_factors=slower)
phases = {
    "new head only": Phase("stage_c", EPOCHS, RMSprop(3e-3)),
    "stage C too": Phase("reduction_b", EPOCHS, RMSprop(5e-4), normalizations_frozen=True),
    "all, the earlier the slower": Phase(None, EPOCHS, slow, normalizations_frozen=True),
}
history = fit_in_phases(
    model,
    list(phases.values()),
    training.dataset,
    steps_per_epoch=training.steps,
    compile_arguments={"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]},
    validation_data=held_out,
    shuffle=False,  # the dataset does
    verbose=2,
)
for number, name in enumerate(phases, 1):
    print(f"{name}: held-out accuracy {history['val_accuracy'][number * EPOCHS - 1]:.2%}")
# A folder as `polynet train` leaves it.
folder = Path("runs", time.strftime("finetune-%Y%m%d-%H%M%S"))
folder.mkdir(parents=True)
model.save(folder / "model.keras")
right = round(history["val_accuracy"][-1] * len(source.held_out))
ModelCard(source.class_names, preprocessing, len(source.held_out), right).save(folder)
print(f"predict with it: polynet predict --model={folder} IMAGE...")
