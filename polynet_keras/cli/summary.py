"""`polynet summary`: the named structures, or what each part of one costs."""

from absl import flags

from polynet_keras.cli.table import print_table
from polynet_keras.models.cost import StageCost, network_cost
from polynet_keras.models.structure import STRUCTURES

USAGE = "[--structure STRUCTURE] [flags]"


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("structure", None, "A name or a notation. [lists the named structures]", flag_values=values)
    flags.DEFINE_integer("image_size", 331, "Side of the image, in pixels.", flag_values=values)
    flags.DEFINE_integer("channels", 3, "Channels of the image.", flag_values=values)
    flags.DEFINE_float("width", 1.0, "Multiplier of the channel counts.", flag_values=values)
    flags.DEFINE_integer("classes", 1000, "Classes of the classifier.", flag_values=values)
    flags.DEFINE_bool("share_projection", False, "Orders of a polynomial share the projection.", flag_values=values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; the structure is named with --structure")

    def parts_of(structure: str) -> list[StageCost]:
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
    print(f"{image}, width {values.width:g}, {values.classes} classes; trainable parameters\n")
    print_table(header, rows)


def _counts(parts: list[StageCost]) -> tuple[str, str, str]:
    parameters, macs, activations = (
        sum(getattr(part, count) for part in parts) for count in ("parameters", "macs", "activations")
    )
    return f"{parameters:,}", f"{macs / 1e9:.3f} G", f"{activations / 1e6:.3f} M"
