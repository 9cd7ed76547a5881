"""Named recipes: small ones that end on a laptop, fine-tuning, and on ImageNet the poster's and others'."""

from dataclasses import dataclass, replace

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.models.cost import network_cost
from polynet_keras.models.parts import PARTS
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.published import A2, A3, RA2, TORCHVISION
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.regularization import Regularization
from polynet_keras.training.recipes.schedule import ScheduleSettings
from polynet_keras.training.recipes.start import Start

FLOPS_A_SECOND = 1e14
"""Assumed floating-point operations per second, of all devices together, for costs in hours; not a measurement."""


@dataclass(frozen=True)
class Preset:
    """A named recipe, with its cost and its result.

    Attributes:
        about: description in one line.
        command: command that runs it.
        recipe: its settings.
        channels: channels of the images.
        classes: classes of the data; 0 if the data are the user's.
        images: number of training images; 0 if they are the user's.
        time: time of a measured run, and its machine; `""` if there was none.
        result: result of that run; `""` if there was none.

    Examples:
        >>> preset = PRESETS["digits"]
        >>> preset.command
        'polynet train'
        >>> preset.recipe == Recipe()
        True
    """

    about: str
    command: str
    recipe: Recipe
    channels: int = 3
    classes: int = 0
    images: int = 0
    time: str = ""
    result: str = ""

    @property
    def flops_per_image(self) -> float:
        """Floating-point operations to train with one image, two per multiply-accumulate.

        They count a forward pass, and twice the trained parts' operations for the gradients of activations and weights.
        """
        return sum(self._flops_of_parts)

    @property
    def flops(self) -> float:
        """Floating-point operations of the whole training; 0 if the number of images is unknown."""
        frozen, trained = self._flops_of_parts
        copies, epochs = self.recipe.start.cache_features, self.recipe.epochs
        return self.images * (frozen * (min(copies, epochs) or epochs) + trained * epochs)

    @property
    def _flops_of_parts(self) -> tuple[float, float]:
        """Floating-point operations for one image: of the frozen parts, and of the trained ones."""
        size, frozen = self.recipe.image_size, self.recipe.start.frozen_through
        parts = network_cost(
            self.recipe.structure,
            input_shape=(size, size, self.channels),
            width=self.recipe.width,
            classes=self.classes or 1000,
        )
        first = PARTS.index(frozen) + 1 if frozen else 0  # the parts of both come in the same order
        return 2.0 * sum(part.macs for part in parts[:first]), 6.0 * sum(part.macs for part in parts[first:])

    @property
    def hours(self) -> float:
        """Hours of the whole training at `FLOPS_A_SECOND`; 0 if the number of images is unknown."""
        return self.flops / FLOPS_A_SECOND / 3600


# The poster's: RMSprop, random crop, synchronous training, 144 crops. Batch, rates and length are recalled from the
# paper (560,000 steps of 512 images, the rate × 0.1 every 160,000), and could not be verified.
_IMAGENET = Recipe(
    data="imagenet",
    structure="ir-5-10-5",
    width=1.0,
    residual_scale=0.3,
    image_size=331,
    epochs=224,
    batch_size=512,
    optimizer=OptimizerSettings("rmsprop", rho=0.9, epsilon=1.0),
    schedule=ScheduleSettings("step", 0.45, warmup_share=0.0, decay_epochs=64, decay_factor=0.1),
    regularization=Regularization(stochastic_depth="adaptive"),
    synchronized=True,
    crops=144,
)

_FINETUNE = Recipe(
    data="photos",
    structure="polynet-g5",
    width=1.0,
    residual_scale=None,
    image_size=331,
    epochs=10,
    start=Start("imagenet", frozen_through="stage_b", frozen_normalizations=True),
    optimizer=OptimizerSettings("sgd"),
    schedule=ScheduleSettings(learning_rate=0.01),
)

PRESETS = {
    "digits": Preset(
        "scikit-learn's digits: the defaults",
        "polynet train",
        Recipe(),
        channels=1,
        classes=10,
        images=1438,
        time="1 min 23 s on 2 cores (AMD EPYC, Zen 4)",
        result="98.89 % (355 of 359 held out)",
    ),
    "fashion_mnist": Preset(
        "Fashion-MNIST: the checkpoint that comes with the package",
        "polynet train --recipe fashion_mnist",
        Recipe(
            data="fashion_mnist",
            structure="1 x [2-way] | 2 x [poly-3, 2-way] | 1 x [poly-3, 2-way]",
            batch_size=64,
            epochs=12,
        ),
        channels=1,
        classes=10,
        images=60_000,
        time="25 min 50 s on 2 cores (AMD EPYC, Zen 4), other work beside it",
        result="92.86 % (9286 of 10,000, test set)",
    ),
    "photos": Preset(
        "your photographs, from scratch: some hundreds or thousands, on a laptop",
        "polynet train --data PHOTOS",
        Recipe(
            data="photos",
            width=0.35,
            image_size=131,
            epochs=75,
            augmentation=Augmentation("random_resized", crop_min_area=0.35, flip=True, color_jitter=0.2),
            optimizer=OptimizerSettings(ema_momentum=0.99),
            regularization=Regularization(weight_decay=0.05, label_smoothing=0.1),
        ),
    ),
    "finetune": Preset(
        "your photographs, from the released weights: what is behind stage B, and no normalization",
        "polynet train --recipe finetune --data PHOTOS",
        _FINETUNE,
    ),
    "probe": Preset(
        "your photographs, from the released weights: the classifier alone, on features that are computed once",
        "polynet train --recipe probe --data PHOTOS",
        replace(
            _FINETUNE,
            epochs=100,
            start=replace(_FINETUNE.start, frozen_through="stage_c", cache_features=1),
            optimizer=OptimizerSettings("adamw"),
            schedule=ScheduleSettings(learning_rate=0.001),
        ),
    ),
    "imagenet-ir-5-10-5": Preset(
        "ImageNet: the net that PolyNets grow from; the poster has 20.50 % top-1 error of one crop",
        "polynet train --recipe imagenet-ir-5-10-5 --data IMAGENET --run_dir SHARED",
        _IMAGENET,
        classes=1000,
        images=1_281_167,
    ),
    "imagenet-g5": Preset(
        "ImageNet: the Very Deep PolyNet, from a grown net; the poster has 18.71 % top-1 error of one crop",
        "polynet train --recipe imagenet-g5 --data IMAGENET --run_dir SHARED --weights GROWN.keras",
        replace(_IMAGENET, structure="polynet-g5"),
        classes=1000,
        images=1_281_167,
    ),
    **{
        name: Preset(
            f"ImageNet: {about}",
            f"polynet train --recipe {name} --data IMAGENET --run_dir SHARED",
            recipe,
            classes=1000,
            images=1_281_167,
        )
        for name, about, recipe in (
            ("a2", "ResNet strikes back's A2, LAMB and 300 epochs; there ResNet-50 has 79.8 %", A2),
            ("a3", "ResNet strikes back's A3, 100 epochs at 160 px; there ResNet-50 has 78.1 %", A3),
            ("ra2", "timm's RMSprop and RandAugment, 450 epochs; there EfficientNet-B0 has 77.7 %", RA2),
            ("torchvision", "torchvision's of 2021, 600 epochs at 176 px; there ResNet-50 has 80.9 %", TORCHVISION),
        )
    },
}
"""The presets, by name."""
