"""The flags of a recipe, for the commands that take one.

Help needs no Keras, so defaults and choices are repeated here. A test compares them with those of `Recipe`.
"""

import functools
from collections.abc import Callable
from typing import Any

from absl import flags

from polynet_keras.cli.choices import CROPS, LAYOUTS, ON_ERRORS, SAMPLINGS
from polynet_keras.cli.headings import Heading

LAYOUT = (
    "What the folders of a folder of images are: `classes`, `splits` (train, val, test), or `auto`: what their names "
    "say."
)

_string, _integer, _number, _switch = Heading.string, Heading.integer, Heading.number, Heading.switch


def _one_of(*choices: str) -> Callable[[Heading, str, Any, str], None]:
    return functools.partial(Heading.string, choices=choices)


SETTINGS: dict[str, dict[str, tuple[Callable[[Heading, str, Any, str], None], Any, str]]] = {
    "Data": {
        "data": (
            _string,
            "digits",
            "`digits`, `fashion_mnist`, `tfds:NAME`, a folder (of images, one folder for each class, or of records), "
            "or a table.csv of images with the columns path, label and, if there are splits, split.",
        ),
        "layout": (_one_of(*LAYOUTS), "auto", LAYOUT),
        "validation_share": (
            _number,
            None,
            "Share of the training images for choosing the best epoch, such as 0.1; 0 for none. [the split `val` "
            "of data that has a split `test` too, else none]",
        ),
        "class_weights": (
            _string,
            None,
            "Weights of the classes in the loss: `balanced` (all classes count the same), or a file of weights by "
            "class, .json or .csv. [every image counts the same]",
        ),
        "sampling": (
            _one_of(*SAMPLINGS),
            "uniform",
            "An epoch has each image (`uniform`) or each class (`balanced`) equally often.",
        ),
        "image_size": (_integer, 75, "Side of the network's input, in pixels."),
        "evaluation_size": (
            _integer,
            None,
            "Side of the images in evaluation and use, if it differs. [image_size]",
        ),
        "decoding": (
            _one_of("exact", "scaled"),
            "exact",
            "Decoding of JPEG files: `exact`, or `scaled` at 1/2, 1/4 or 1/8 of their size, which is faster.",
        ),
        "on_error": (_one_of(*ON_ERRORS), "error", "What to do about an unreadable image: `error` or `skip`."),
    },
    "Network": {
        "structure": (
            _string,
            "1 x [2-way] | 1 x [poly-3, 2-way] | 1 x [poly-3]",
            "The residual units: a name of `polynet summary`, or a notation.",
        ),
        "width": (_number, 0.25, "Multiplier of the channel counts."),
        "residual_scale": (
            Heading.list,
            ["0.3"],
            "Factor on the residual paths: a number, `first,last` (linear in depth), one number for each module, or "
            "`released` (the published net's: 1 to 0.7 with depth).",
        ),
        "normalization_momentum": (
            _number,
            None,
            "Share of the moving statistics of batch normalization that a step keeps: nearer to 1, they come from more "
            "batches. [0.9]",
        ),
        "synchronized": (
            _switch,
            False,
            "Compute the statistics of batch normalization over the global batch, not over each device's part.",
        ),
    },
    "Training": {
        "epochs": (_integer, 15, "Passes over the training images."),
        "patience": (
            _integer,
            None,
            "End training after this many epochs without a better one; it needs validation images. [all epochs]",
        ),
        "batch_size": (_integer, 32, "Images in a step, for all workers together."),
        "seed": (_integer, 0, "Seed of the initialization, the split, the order and the augmentation."),
        "loss": (
            _one_of("categorical", "binary"),
            "categorical",
            "Loss: `categorical`, the cross-entropy of the softmax, or `binary`, one for each class.",
        ),
        "target_threshold": (
            _number,
            None,
            "Least share of a mixed image for a class to count as present (binary): 0.2 is common. [the shares]",
        ),
        "precision": (
            _one_of("float32", "mixed_bfloat16", "mixed_float16"),
            "float32",
            "Precision of the computation: `float32`, `mixed_bfloat16` or `mixed_float16`.",
        ),
        "remat": (
            _one_of("none", "stage_b", "all"),
            "none",
            "Activations to recompute instead of keeping, to save memory: `none`, `stage_b` or `all`.",
        ),
    },
    "Start from other weights": {
        "start.weights": (
            _string,
            None,
            "Weights to start with: a run folder, a .keras file, a weights file, or a name of `polynet weights`. "
            "Without --recipe their structure, width and image size are also used.",
        ),
        "start.carry_optimizer": (_switch, False, "Also use the state of the optimizer in the .keras file."),
        "start.frozen_through": (
            _one_of("stem", "stage_a", "reduction_a", "stage_b", "reduction_b", "stage_c"),
            None,
            "Last frozen part of the network: `stem`, `stage_a`, `reduction_a`, `stage_b`, `reduction_b` or `stage_c`.",
        ),
        "start.unfreezing": (
            _string,
            None,
            "Gradual unfreezing, PART:EPOCHS[:LEARNING_RATE] split by commas: `stage_c:3,reduction_b:3:0.001` freezes "
            "through stage C for 3 epochs, through reduction B for 3, and then through --frozen_through. [none]",
        ),
        "start.frozen_normalizations": (_switch, False, "Train no batch normalization, and keep its statistics."),
        "start.cache_features": (
            _integer,
            0,
            "Copies of each image to compute through the frozen part once and keep in files: 1 for its centre crop, "
            "10 for ten augmented ones, 0 to compute the frozen part in each epoch.",
        ),
    },
    "Augmentation": {
        "augmentation.crop": (
            _one_of("random", "random_resized"),
            "random",
            "Training crop: `random`, a square of the resized image, or `random_resized`, of random size too.",
        ),
        "augmentation.crop_min_area": (_number, None, "Least share of the area of a random-resized crop. [0.08]"),
        "augmentation.flip": (_switch, False, "Mirror half of the images."),
        "augmentation.color_jitter": (
            _number,
            0.0,
            "Range of the variation of brightness, contrast and saturation, as a share: 0.4 is common.",
        ),
        "augmentation.policy": (
            _one_of(
                "rand_augment",
                "rand_augment_increasing",
                "trivial_augment_wide",
                "model_garden_auto_augment",
                "model_garden_rand_augment",
            ),
            None,
            "Policy of distortions: `trivial_augment_wide`, `rand_augment` (Keras's), `rand_augment_increasing` "
            "(timm's), or, with the extra model-garden, `model_garden_rand_augment` or `model_garden_auto_augment`.",
        ),
        "augmentation.erasing": (_number, 0.0, "Probability of replacing a rectangle of an image by noise."),
        "augmentation.mixup": (_number, 0.0, "Alpha of MixUp; 0 for none, 0.2 is common."),
        "augmentation.cutmix": (
            _number,
            0.0,
            "Alpha of CutMix; 0 for none, 1 is common. With both, half of the pairs get one, half the other.",
        ),
    },
    "Details of the augmentation": {
        "augmentation.repeats": (
            _integer,
            1,
            "Copies of an image in a batch, each augmented anew: 3 is common (repeated augmentation).",
        ),
        "augmentation.magnitude": (
            _number,
            None,
            "Magnitude of the distortions, from 0 to 10 (rand_augment_increasing). [9]",
        ),
        "augmentation.magnitude_std": (
            _number,
            None,
            "Standard deviation of each distortion's magnitude around it (rand_augment_increasing). [0.5]",
        ),
    },
    "Optimizer": {
        "optimizer.name": (
            _one_of("rmsprop", "sgd", "adamw", "lamb"),
            "rmsprop",
            "Optimizer: `rmsprop`, `sgd`, `adamw` or `lamb`.",
        ),
    },
    "Details of the optimizer": {
        "optimizer.momentum": (_number, None, "Momentum (rmsprop, sgd). [0 for rmsprop, 0.9 for sgd]"),
        "optimizer.rho": (_number, None, "Decay of the mean square of the gradients (rmsprop). [0.9]"),
        "optimizer.beta_1": (_number, None, "Decay of the first moment (adamw, lamb). [0.9]"),
        "optimizer.beta_2": (_number, None, "Decay of the second moment (adamw, lamb). [0.999]"),
        "optimizer.epsilon": (
            _number,
            None,
            "Term that keeps the divisor of an update from zero (rmsprop, adamw, lamb). [1e-07]",
        ),
        "optimizer.decay_in_ratio": (
            _switch,
            False,
            "Scale the weight decay by the trust ratio too, as the paper of LAMB and timm do (lamb).",
        ),
        "optimizer.global_clipnorm": (_number, 0.0, "Largest norm of the whole gradient; 0 for no clipping."),
        "optimizer.gradient_accumulation_steps": (_integer, 1, "Steps whose mean gradient makes one update."),
        "optimizer.ema_momentum": (
            _number,
            0.0,
            "Momentum of the moving average of the weights; the averages are evaluated and saved. 0 for none.",
        ),
        "optimizer.learning_rate_factors": (
            _string,
            None,
            "Factors on the learning rate of parts of the network, such as `stem=0.1,stage_a=0.3`. [1 for all]",
        ),
        "optimizer.layer_decay": (
            _number,
            1.0,
            "Factor on the learning rate from each part of the network to the one before it, from the classifier's to "
            "the stem's: 0.75 is common.",
        ),
    },
    "Schedule of the learning rate": {
        "schedule.learning_rate": (_number, 0.002, "Highest learning rate."),
        "schedule.name": (
            _one_of("cosine", "step", "exponential", "constant"),
            "cosine",
            "Shape of the schedule: `cosine`, `step`, `exponential` or `constant`.",
        ),
        "schedule.warmup_share": (_number, 0.1, "Share of the run in which the learning rate rises from zero."),
    },
    "Details of the schedule": {
        "schedule.decay_epochs": (_number, None, "Epochs between two decays of the learning rate (step, exponential)."),
        "schedule.decay_factor": (_number, None, "Factor of each decay (step, exponential)."),
    },
    "Regularization": {
        "regularization.weight_decay": (
            _number,
            0.0,
            "Share of each kernel that an update subtracts, times the learning rate.",
        ),
        "regularization.label_smoothing": (
            _number,
            0.0,
            "Share of a label to spread over all classes: 0.1 is common.",
        ),
        "regularization.stochastic_depth": (
            _one_of("off", "on", "adaptive"),
            "off",
            "Stochastic depth: `off`, `on`, or `adaptive`, which begins when the network overfits.",
        ),
    },
    "Distillation": {
        "regularization.teacher": (
            _string,
            None,
            "Trained model to learn from, besides the labels: a run folder, a .keras file with a card, or a name of "
            "`polynet weights`. [the labels alone]",
        ),
        "regularization.teacher_temperature": (_number, 4.0, "Divisor of the logits of both networks."),
        "regularization.teacher_weight": (
            _number,
            0.9,
            "Weight of the teacher in the loss; the labels have the rest to 1.",
        ),
    },
    "Details of stochastic depth": {
        "regularization.max_drop_rate": (
            _number,
            None,
            "Highest drop rate, of the deepest residual unit (on, adaptive). [0.25]",
        ),
        "regularization.drop_rate_step": (_number, None, "Step by which the drop rate changes (adaptive). [0.05]"),
        "regularization.gap_metric": (
            _one_of("accuracy", "loss"),
            None,
            "Metric whose gap between training and validation shows overfitting: `accuracy` or `loss` (adaptive). "
            "[accuracy]",
        ),
        "regularization.gap_threshold": (
            _number,
            None,
            "Gap above which the network overfits (adaptive). [0.05]",
        ),
        "regularization.gap_window": (
            _integer,
            None,
            "Epochs that must agree before the drop rate changes (adaptive). [3]",
        ),
    },
    "Evaluation": {
        "crops": (
            functools.partial(Heading.integer, choices=CROPS),
            1,
            "Crops of each image in `polynet evaluate`: 1, 10 or 144.",
        ),
    },
}
"""For each heading and setting of a recipe: the kind of the flag, its default, and its description."""
RARE = (
    "Details of the augmentation",
    "Details of the optimizer",
    "Details of the schedule",
    "Details of stochastic depth",
)
"""Headings that `--helpfull` shows."""

PRESETS = (
    "digits",
    "fashion_mnist",
    "photos",
    "finetune",
    "probe",
    "imagenet-ir-5-10-5",
    "imagenet-g5",
    "a2",
    "a3",
    "ra2",
    "torchvision",
)


PHOTOGRAPHS = {
    "image_size": "chosen",
    "decoding": "chosen",
    "epochs": "chosen",
    "batch_size": "chosen",
    "class_weights": "chosen",
    "augmentation.crop_min_area": "chosen",
    "augmentation.color_jitter": "chosen",
    "optimizer.ema_momentum": "chosen",
    "normalization_momentum": "chosen",
    "width": "0.35",
    "augmentation.crop": "random_resized",
    "augmentation.flip": "on",
    "regularization.weight_decay": "0.05",
    "regularization.label_smoothing": "0.1",
}
"""By setting: the default for photographs where it differs, of the preset `photos` or chosen by rules."""


def define_recipe_flags(values: flags.FlagValues, photographs: bool = True) -> None:
    """Defines the flags of a recipe.

    Args:
        values: of the command.
        photographs: whether the command has other defaults for photographs.
    """
    recipe = (
        f"Settings to begin with: a preset ({', '.join(PRESETS)}; `polynet recipes` shows them) or a JSON file. The "
        "flags below change it; `--noflip` and `--policy=` undo a choice."
    )
    if photographs:
        recipe += (
            " Without --recipe and --weights, a folder or a table of images has the defaults after `photographs:`; "
            "`chosen` means that the command looks at the images, and says what it chooses and why."
        )
    Heading(values, "Recipe").string("recipe", None, recipe)
    for title, settings in SETTINGS.items():
        heading = Heading(values, title, rare=title in RARE)
        for setting, (define, default, text) in settings.items():
            define(heading, flag_of(setting), default, text)
            if photographs:
                values[flag_of(setting)].of_photographs = PHOTOGRAPHS.get(setting)


def flag_of(setting: str) -> str:
    """Returns the flag of a recipe's setting: its name, or the section's name for an optimizer or a schedule."""
    section, _, name = setting.rpartition(".")
    return section if name == "name" else name
