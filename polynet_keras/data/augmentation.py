"""The augmentation of training images, as a value."""

from dataclasses import dataclass

from polynet_keras.basics.checks import check_choice, check_flag, check_integer, check_number, settle_own
from polynet_keras.basics.names import number_of

RANDOM_CROPS = ("random", "random_resized")
POLICIES = (
    "rand_augment",
    "rand_augment_increasing",
    "trivial_augment_wide",
    "model_garden_auto_augment",
    "model_garden_rand_augment",
)
POLICY_DEFAULTS: dict[str | None, dict[str, float]] = {
    **{policy: {} for policy in (None, *POLICIES)},
    "rand_augment_increasing": {"magnitude": 9.0, "magnitude_std": 0.5},
}
"""The settings of each policy, with their defaults."""
POLICIES_OWN = tuple(POLICY_DEFAULTS["rand_augment_increasing"])


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of a training image before it is normalized, in this order.

    Attributes:
        crop: `"random"`, the poster's: a square from anywhere in the image, resized by the protocol; or
            `"random_resized"`, GoogLeNet's: a part of 8 to 100 % of the area and of an aspect ratio of 3:4 to 4:3,
            resized to the network's input, with a filter only if it shrinks to less than half. Of a JPEG, only this
            part is decoded.
        crop_min_area: least share of the area in a random-resized crop, instead of GoogLeNet's 0.08.
        flip: whether half of the images are mirrored.
        color_jitter: how far brightness, contrast and saturation vary, as a share: 0.4 is common. RGB only.
        policy: `"trivial_augment_wide"`, one operation of any strength (arXiv:2103.10158); `"rand_augment"`, Keras's;
            `"rand_augment_increasing"`, timm's, with a noisy magnitude; or from tf-models-official (extra
            `model-garden`) `"model_garden_auto_augment"` (its policy for ImageNet) or `"model_garden_rand_augment"`.
            RGB only.
        magnitude: magnitude of rand_augment_increasing, from 0 to 10 (default 9).
        magnitude_std: standard deviation of each operation's magnitude around it (default 0.5).
        erasing: the probability that noise replaces a rectangle.
        mixup: alpha of the Beta distribution that weights the two images of a pair, 0 for none (arXiv:1710.09412).
        cutmix: the same for the area of one image that is pasted into the other (arXiv:1905.04899). With both, half of
            the pairs get MixUp, half CutMix.
        repeats: how often an image is in a batch, augmented anew each time (repeated augmentation, arXiv:1901.09335).
            The number of images in an epoch stays the same, so an epoch has only a share of the different images; the
            next epochs have the others.

    Raises:
        ValueError: a value is out of range.

    Examples:
        >>> augmentation = Augmentation("random_resized", flip=True, mixup=0.2)
        >>> augmentation.mixes
        True
    """

    crop: str = "random"
    crop_min_area: float | None = None
    flip: bool = False
    color_jitter: float = 0.0
    policy: str | None = None
    magnitude: float | None = None
    magnitude_std: float | None = None
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    repeats: int = 1

    def __post_init__(self):
        check_choice("crop", self.crop, RANDOM_CROPS)
        if self.policy is not None:
            check_choice("policy", self.policy, POLICIES)
        settle_own(self, "policy", self.policy, POLICY_DEFAULTS)
        for name, at_most in (("magnitude", 10), ("magnitude_std", None)):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), at_least=0, at_most=at_most)
        if self.crop_min_area is not None:
            if self.crop != "random_resized":
                raise ValueError(
                    f"crop_min_area={self.crop_min_area!r} is for crop='random_resized', not {self.crop!r}"
                )
            check_number("crop_min_area", self.crop_min_area, above=0, at_most=1)
        check_flag("flip", self.flip)
        check_integer("repeats", self.repeats, at_least=1)
        for name, highest in (("color_jitter", 1), ("erasing", 1), ("mixup", None), ("cutmix", 1)):
            check_number(name, getattr(self, name), at_least=0, at_most=highest)

    @property
    def mixes(self) -> bool:
        """Whether labels become shares of classes."""
        return self.mixup > 0 or self.cutmix > 0

    def check_channels(self, channels: int) -> None:
        if channels != 3 and (self.color_jitter or self.policy):
            raise ValueError(f"color_jitter and policy are for RGB images; these have {number_of(channels, 'channel')}")
