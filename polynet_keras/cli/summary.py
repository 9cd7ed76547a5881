"""`polynet summary`: the named structures, or what each part of one costs."""

from collections.abc import Sequence

from absl import flags

USAGE = "[--structure STRUCTURE] [flags]"


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("structure", None, "A name or a notation. [lists the named structures]", flag_values=values)
    flags.DEFINE_integer("image_size", 331, "Side of the image, in pixels.", lower_bound=75, flag_values=values)
    flags.DEFINE_integer("channels", 3, "Channels of the image.", lower_bound=1, flag_values=values)
    flags.DEFINE_float("width", 1.0, "Multiplier of the channel counts.", flag_values=values)
    flags.DEFINE_integer("classes", 1000, "Classes of the classifier.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("share_projection", False, "Orders of a polynomial share the projection.", flag_values=values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    from polynet_keras.models import Structure, list_structures, network_cost

    if arguments:
        raise ValueError(f"unexpected argument {arguments[0]!r}; the structure is named with --structure")
    if values.structure is None:
        print("MACs of one 331 x 331 x 3 image, 1000 classes\n")
        named = [
            (card.name, f"{card.parameters:,}", f"{card.macs / 1e9:.2f} G", card.stages) for card in list_structures()
        ]
        _print_table(("structure", "parameters", "MACs", "stages"), named, right={1, 2})
        return
    size = values.image_size
    parts = network_cost(
        Structure.parse(values.structure),
        input_shape=(size, size, values.channels),
        width=values.width,
        share_projection=values.share_projection,
        classes=values.classes,
    )
    totals = [sum(getattr(part, count) for part in parts) for count in ("parameters", "macs", "activations")]
    rows = [
        (
            part.name,
            " x ".join(map(str, part.output_shape)),
            *_counts(part.parameters, part.macs, part.activations),
            part.modules,
        )
        for part in parts
    ]
    rows.append(("total", "", *_counts(*totals), ""))
    _print_table(("part", "output", "parameters", "MACs", "activations", "modules"), rows, right={1, 2, 3, 4})


def _counts(parameters: int, macs: int, activations: int) -> tuple[str, str, str]:
    return f"{parameters:,}", f"{macs / 1e9:.3f} G", f"{activations / 1e6:.3f} M"


def _print_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], right: set[int]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())
