"""`polynet summary`: lists the named structures, or the cost of each part of one."""

from typing import TYPE_CHECKING

from absl import flags

from polynet_keras.basics.checks import check_integer
from polynet_keras.basics.names import number_of
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.table import print_table

if TYPE_CHECKING:
    from polynet_keras.models.cost import StageCost

USAGE = "[--structure STRUCTURE] [flags]"
EXAMPLES = (
    "polynet summary",
    "polynet summary --structure polynet-g5 --image_size 331",
)


def define_flags(values: flags.FlagValues) -> None:
    network = Heading(values, "Network")
    network.string("structure", None, "The residual units: a name or a notation. [lists the named structures]")
    network.number("width", 1.0, "Multiplier of the channel counts.")
    network.integer("classes", 1000, "Classes of the classifier.")
    network.switch("share_projection", False, "Share the projection between the orders of a polynomial.")
    image = Heading(values, "Image")
    image.integer("image_size", 331, "Side of the image, in pixels.")
    image.integer("channels", 3, "Channels of the image.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; name the structure with --structure")

    from polynet_keras.models.arguments import CHANNELS, MIN_SIZE
    from polynet_keras.models.cost import network_cost
    from polynet_keras.models.structure import STRUCTURES

    check_integer("image_size", values.image_size, MIN_SIZE)
    if values.channels not in CHANNELS:
        raise ValueError(f"channels={values.channels} must be one of {', '.join(map(str, CHANNELS))}")

    def parts_of(structure: str) -> "list[StageCost]":
        return network_cost(
            structure,
            input_shape=(values.image_size, values.image_size, values.channels),
            width=values.width,
            share_projection=values.share_projection,
            classes=values.classes,
        )

    size, columns = values.image_size, ("parameters", "MACs", "activations")
    if values.structure is None:
        rows = [(name, *_counts(parts_of(name)), str(structure)) for name, structure in STRUCTURES.items()]
        header = ("structure", *columns, "stages")
    else:
        parts = parts_of(values.structure)
        rows = [
            (f"{part.name}", *_counts([part]), f"{' x '.join(map(str, part.output_shape)):<18}{part.modules}".rstrip())
            for part in parts
        ]
        rows.append(("total", *_counts(parts), ""))
        header = ("part", *columns, f"{'output':<18}modules")
    image = f"one {size} x {size} x {values.channels} image"
    print(f"{image}, width {values.width:g}, {number_of(values.classes, 'class', 'classes')}; trainable parameters\n")
    print_table(header, rows)


def _counts(parts: "list[StageCost]") -> tuple[str, str, str]:
    parameters, macs, activations = (
        sum(getattr(part, count) for part in parts) for count in ("parameters", "macs", "activations")
    )
    return f"{parameters:,}", f"{macs / 1e9:.3f} G", f"{activations / 1e6:.3f} M"
