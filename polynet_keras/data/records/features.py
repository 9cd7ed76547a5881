"""What the parts of a record are called."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Features:
    """The names in a record, and its first label.

    Attributes:
        image: the encoded image.
        label: int64.
        first_label: the label of the first class: 0, or 1 in the ImageNet records of tf-models.
    """

    image: str = "image/encoded"
    label: str = "image/class/label"
    first_label: int = 0
