"""Recipes that others published for ImageNet, with their numbers, for the network that PolyNets grow from.

These differences from the originals hold for all of them:

* The network: the originals train ResNet-50 and EfficientNets; here it is IR 5-10-5, with residual paths scaled by 0.3.
  Nobody has tuned these numbers for it, and none of them was run to its end.
* Evaluation squashes an image to a square of 378/331 of the crop. The originals keep the aspect ratio and resize less,
  to 236 or 232 for 224. They also resize bicubically, or alternate; here resizing is bilinear.
* MixUp and CutMix: here each pair of images draws the method and its share; there each batch does.
* Weight decay leaves biases and normalizations alone, as there. Here it is decoupled from the gradient; see each
  recipe.
* The originals compute in 16 bits (`precision`).
"""

from dataclasses import replace

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.regularization import Regularization
from polynet_keras.training.recipes.schedule import ScheduleSettings

_NETWORK = Recipe(data="imagenet", structure="ir-5-10-5", width=1.0, residual_scale=0.3)

A2 = replace(
    _NETWORK,
    image_size=224,
    epochs=300,
    batch_size=2048,
    augmentation=Augmentation(
        "random_resized",
        flip=True,
        policy="rand_augment_increasing",
        magnitude=7.0,
        magnitude_std=0.5,
        mixup=0.1,
        cutmix=1.0,
        repeats=3,
    ),
    optimizer=OptimizerSettings("lamb", epsilon=1e-6, decay_in_ratio=True, global_clipnorm=1.0),
    schedule=ScheduleSettings("cosine", 0.005, warmup_share=5 / 300),
    regularization=Regularization(weight_decay=0.02, stochastic_depth="on", max_drop_rate=0.05),
    loss="binary",
    target_threshold=0.2,
)
"""A2 of Wightman et al., "ResNet strikes back", arXiv:2110.00476, table 2.

ε and the clipping are defaults of timm's LAMB. The threshold of 0.2 comes from the commands that repositories give for
A2. The original's repeated augmentation draws each epoch's images anew; here an epoch goes through all of them."""

A3 = A2.replaced(
    {
        "image_size": 160,
        "evaluation_size": 224,
        "epochs": 100,
        "augmentation.magnitude": 6.0,
        "augmentation.repeats": 1,
        "schedule.learning_rate": 0.008,
        "schedule.warmup_share": 5 / 100,
        "regularization.stochastic_depth": "off",
    }
)
"""A3 of the same table: shorter, with smaller images, and neither repeated augmentation nor stochastic depth."""

RA2 = replace(
    _NETWORK,
    image_size=224,
    epochs=450,
    batch_size=768,
    augmentation=Augmentation(
        "random_resized", flip=True, policy="rand_augment_increasing", magnitude=9.0, magnitude_std=0.5, erasing=0.2
    ),
    optimizer=OptimizerSettings("rmsprop", rho=0.9, momentum=0.9, epsilon=0.001, ema_momentum=0.9999),
    schedule=ScheduleSettings("step", 0.048, warmup_share=3 / 450, decay_epochs=2.4, decay_factor=0.97),
    regularization=Regularization(weight_decay=1e-5, label_smoothing=0.1, stochastic_depth="on", max_drop_rate=0.2),
)
"""timm's RMSprop recipe, the source of its `ra` and `ra2` weights.

It is the command for EfficientNet-B0 in timm's training examples, with 2 × 384 images per step. Warm-up and smoothing
are timm's defaults of that time.

The original has dropout of 0.2 before the classifier; here there is none. Its mean squares begin at 1, here at 0. The
command has RandAugment's older strengths, some of which fall as the magnitude rises. Its decay of 1e-5 is in the
gradient, which RMSprop scales up. Separate from the gradient, as here, the same number has less effect."""

TORCHVISION = replace(
    _NETWORK,
    image_size=176,
    evaluation_size=224,
    epochs=600,
    batch_size=1024,
    augmentation=Augmentation(
        "random_resized",
        flip=True,
        policy="trivial_augment_wide",
        erasing=0.1,
        mixup=0.2,
        cutmix=1.0,
        repeats=4,
    ),
    optimizer=OptimizerSettings("sgd", momentum=0.9, ema_momentum=1 - 2e-5 * 1024 / 600),
    schedule=ScheduleSettings("cosine", 0.5, warmup_share=5 / 600),
    regularization=Regularization(weight_decay=2e-4, label_smoothing=0.1),
)
"""torchvision's recipe of 2021, the source of its `IMAGENET1K_V2` weights.

It is the command for ResNet-50, with 8 × 128 images per step, in "How to train state-of-the-art models using
TorchVision's latest primitives" on pytorch.org.

The original's decay of 2e-5 is in the gradient, and a momentum of 0.9 adds it up ten times: this is 2e-4 separate from
the gradient. Its averages take 2e-5 · 32 · 1024 / 600 of the weights every 32 steps; here they take a 32nd of that at
every step. SGD has Nesterov's momentum here, and none there. Erasing leaves noise here, and ImageNet's mean there."""
