"""The names of the parts of a record."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Features:
    """The names in a record, and its first label.

    Attributes:
        image: name of the encoded image.
        label: name of the label, an int64.
        first_label: the label of the first class: 0, or 1 in the ImageNet records of tf-models.
    """

    image: str = "image/encoded"
    label: str = "image/class/label"
    first_label: int = 0
