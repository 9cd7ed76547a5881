"""The Inception blocks of PolyNet as tables: the stem, blocks A, B and C, and the two reductions.

Each table lists parallel branches, each a sequence of convolutions; a convolution is conv-BN-ReLU without bias.
`models.blocks` builds the graph from these tables, and `models.cost` counts from them. Sizes in comments are those of
a 331 px image.

Source: the released Caffe model of the authors, as ported to PyTorch in `pretrainedmodels` and `pytorchcv`.
"""

from dataclasses import dataclass

BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9
"""The share of a moving statistic that one step keeps: PyTorch's default of 0.1 in Keras's convention."""


@dataclass(frozen=True)
class ConvSpec:
    """A convolution of the tables: `filters` at width 1.0, `kernel` (height, width)."""

    filters: int
    kernel: tuple[int, int]
    strides: int = 1
    padding: str = "same"


@dataclass(frozen=True)
class MaxPool:
    """A max pooling of the tables: 3×3, stride 2, without padding."""

    size: int = 3
    strides: int = 2


Branch = tuple[ConvSpec | MaxPool, ...]
Branches = tuple[Branch, ...]


def _conv(filters: int, height: int, width: int | None = None, *, strides: int = 1, padding: str = "same") -> ConvSpec:
    return ConvSpec(filters, (height, height if width is None else width), strides, padding)


POOL = MaxPool()

STEM: tuple[tuple[str, Branches], ...] = (
    (
        "stem",  # 331 → 165 → 163 → 163 × 163 × 64
        ((_conv(32, 3, strides=2, padding="valid"), _conv(32, 3, padding="valid"), _conv(64, 3)),),
    ),
    ("stem_mixed1", ((POOL,), (_conv(96, 3, strides=2, padding="valid"),))),  # 81 × 81 × 160
    (
        "stem_mixed2",  # 79 × 79 × 192
        (
            (_conv(64, 1), _conv(96, 3, padding="valid")),
            (_conv(64, 1), _conv(64, 7, 1), _conv(64, 1, 7), _conv(96, 3, padding="valid")),
        ),
    ),
    ("stem_mixed3", ((POOL,), (_conv(192, 3, strides=2, padding="valid"),))),  # 39 × 39 × 384
)

BLOCKS: dict[str, Branches] = {
    "a": ((_conv(32, 1), _conv(48, 3), _conv(64, 3)), (_conv(32, 1), _conv(32, 3)), (_conv(32, 1),)),
    "b": ((_conv(128, 1), _conv(160, 1, 7), _conv(192, 7, 1)), (_conv(192, 1),)),
    "c": ((_conv(192, 1), _conv(224, 1, 3), _conv(256, 3, 1)), (_conv(192, 1),)),
}
"""The branches of each stage's block; the caller adds the projection back to the stage's channels."""

REDUCTIONS: dict[str, Branches] = {
    "a": (  # 39 × 39 × 384 → 19 × 19 × 1152
        (_conv(256, 1), _conv(256, 3), _conv(384, 3, strides=2, padding="valid")),
        (_conv(384, 3, strides=2, padding="valid"),),
        (POOL,),
    ),
    "b": (  # 19 × 19 × 1152 → 9 × 9 × 2048
        (_conv(256, 1), _conv(256, 3), _conv(256, 3, strides=2, padding="valid")),
        (_conv(256, 1), _conv(256, 3, strides=2, padding="valid")),
        (_conv(256, 1), _conv(384, 3, strides=2, padding="valid")),
        (POOL,),
    ),
}
"""The reductions after stage A and stage B."""


def scaled(filters: int, width: float) -> int:
    """Returns the channel count at a width multiplier: rounded to a multiple of 8, at least 8; exact at 1.0."""
    return filters if width == 1.0 else max(8, int(filters * width + 4) // 8 * 8)
