"""The parts of the network from the image to the classes, as the names of its layers tell them."""

from polynet_keras.basics.checks import check_choice

PARTS = ("stem", "stage_a", "reduction_a", "stage_b", "reduction_b", "stage_c", "predictions")


def part_of(layer_name: str) -> str | None:
    """The part that a layer belongs to by its name; `None` for layers without weights, and for a user's own."""
    for part in PARTS:
        if layer_name == part or layer_name.startswith(f"{part}_"):
            return part
    return None


def check_part(argument: str, part: str) -> None:
    """Raises a `ValueError` that names the argument unless `part` is one."""
    check_choice(argument, part, PARTS)
