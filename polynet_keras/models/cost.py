"""The cost of a structure, counted from the tables of `models.inception` without building the network."""

from dataclasses import dataclass

from polynet_keras.basics.checks import check_integer, check_number
from polynet_keras.basics.names import size_text
from polynet_keras.models.arguments import check_image_shape
from polynet_keras.models.inception import BLOCKS, REDUCTIONS, STEM, Branches, ConvSpec, MaxPool, scaled
from polynet_keras.models.polynomial import Polynomial
from polynet_keras.models.structure import STAGES, STRUCTURES, Structure


@dataclass
class StageCost:
    """The cost of a part of the network for one image.

    Attributes:
        name: `"stem"`, `"stage A"`, `"reduction A"`, ..., `"head"`.
        output_shape: (height, width, channels); (classes,) for the head.
        modules: the stage's residual units in the structure notation; `""` for the other parts.
        parameters: trainable ones: kernels, gamma and beta of batch normalizations, the head's kernel and bias.
        macs: multiply-accumulates of convolutions and the classifier. Normalizations, activations, sums and pooling do
            not count, as is usual.
        activations: output elements of convolutions and the classifier (counted as in fvcore and timm).
    """

    name: str
    output_shape: tuple[int, ...]
    modules: str = ""
    parameters: int = 0
    macs: int = 0
    activations: int = 0


@dataclass(frozen=True)
class StructureCard:
    """A named structure and its cost.

    Attributes:
        name: the name in `STRUCTURES`.
        stages: the residual units, in the structure notation.
        parameters: trainable ones, with 1000 classes.
        macs: of one 331 x 331 x 3 image, counted as in `StageCost`.
    """

    name: str
    stages: str
    parameters: int
    macs: int


def list_structures() -> list[StructureCard]:
    """Returns the named structures: their stages, parameters with 1000 classes, and MACs of one 331 x 331 x 3 image.

    Examples:
        >>> {card.name: card.parameters for card in list_structures()}
        {'polynet-g5': 95366600, 'ir-5-10-5': 31574440, 'ir-10-20-10': 54048840, 'ir-20-56-20': 117766536}
    """
    cards = []
    for name, structure in STRUCTURES.items():
        parts = network_cost(structure)
        parameters, macs = sum(part.parameters for part in parts), sum(part.macs for part in parts)
        cards.append(StructureCard(name, str(structure), parameters, macs))
    return cards


def network_cost(
    structure: str | Structure,
    *,
    input_shape: tuple[int, int, int] = (331, 331, 3),
    width: float = 1.0,
    share_projection: bool = False,
    classes: int = 1000,
) -> list[StageCost]:
    """Returns the cost of each part of the network, from the stem to the head, for one image.

    Args:
        structure: the residual units: a name, a notation or a `Structure`.
        input_shape: (height, width, channels) of the image, sides of at least 75 px.
        width: multiplier of the channel counts.
        share_projection: whether applications of one letter share the convolution of their projection.
        classes: number of outputs of the classifier.

    Raises:
        ValueError: `PolyNet` would refuse an argument too, or `input_shape` has a side of `None`.

    Examples:
        >>> parts = network_cost("polynet-g5")
        >>> [part.name for part in parts]
        ['stem', 'stage A', 'reduction A', 'stage B', 'reduction B', 'stage C', 'head']
        >>> sum(part.parameters for part in parts)
        95366600
    """
    structure = Structure.parse(structure)
    if None in input_shape:
        raise ValueError(f"input_shape={size_text(input_shape)} must say the size of the image to count its operations")
    check_image_shape("input_shape", input_shape)
    check_number("width", width, above=0)
    check_integer("classes", classes, 1)
    count = _Counter(input_shape, width)
    for _, branches in STEM:
        count.mixed(branches)
    parts = [count.finish("stem")]
    for stage, modules, text in zip(STAGES, structure.stages, structure.stage_texts, strict=True):
        for module in modules:
            count.module(module, stage, share_projection)
        parts.append(count.finish(f"stage {stage.upper()}", text))
        if stage in REDUCTIONS:
            count.mixed(REDUCTIONS[stage])
            parts.append(count.finish(f"reduction {stage.upper()}"))
    channels = count.shape[-1]
    parts.append(StageCost("head", (classes,), "", (channels + 1) * classes, channels * classes, classes))
    return parts


class _Counter:
    """Walks the tables as `models.blocks.mixed` does, with shapes in place of tensors."""

    def __init__(self, shape: tuple[int, int, int], width: float):
        self.shape = shape
        self.width = width
        self.part = StageCost("", shape)

    def finish(self, name: str, modules: str = "") -> StageCost:
        part, self.part = self.part, StageCost("", self.shape)
        part.name, part.output_shape, part.modules = name, self.shape, modules
        return part

    def mixed(self, branches: Branches, *, new_convolutions: bool = True) -> None:
        outputs = []
        for branch in branches:
            shape = self.shape
            for spec in branch:
                shape = self._step(shape, spec, new_convolutions)
            outputs.append(shape)
        self.shape = (*outputs[0][:2], sum(channels for *_, channels in outputs))

    def module(self, polynomial: Polynomial, stage: str, share_projection: bool) -> None:
        letters: set[str] = set()
        for application in polynomial.applications:
            letter, entry = application[0], self.shape
            self.mixed(BLOCKS[stage], new_convolutions=letter not in letters)
            new_projection = not (share_projection and letter in letters)
            self.shape = self._convolution(self.shape, ConvSpec(entry[-1], (1, 1)), entry[-1], new_projection)
            letters.add(letter)

    def _step(self, shape, spec: ConvSpec | MaxPool, new: bool) -> tuple[int, int, int]:
        if isinstance(spec, MaxPool):
            height, width = ((side - spec.size) // spec.strides + 1 for side in shape[:2])
            return height, width, shape[-1]
        return self._convolution(shape, spec, scaled(spec.filters, self.width), new)

    def _convolution(self, shape, spec: ConvSpec, filters: int, new: bool) -> tuple[int, int, int]:
        kernel_height, kernel_width = spec.kernel
        height, width = shape[:2]
        if spec.padding == "valid":
            height, width = height - kernel_height + 1, width - kernel_width + 1
        height, width = -(-height // spec.strides), -(-width // spec.strides)
        weights = kernel_height * kernel_width * shape[-1] * filters
        self.part.parameters += 2 * filters + (weights if new else 0)  # gamma and beta are new at each application
        self.part.macs += weights * height * width
        self.part.activations += height * width * filters
        return height, width, filters
