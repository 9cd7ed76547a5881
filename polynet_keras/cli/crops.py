"""`polynet crops`: a picture of the crops that a network is shown of an image."""

from pathlib import Path

from absl import flags

USAGE = "IMAGE [flags]"
SUFFIX = ".png"


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_integer("crops", 144, "How many: 1, 10 or 144.", flag_values=values)
    flags.DEFINE_integer("image_size", 331, "Side of a crop, in pixels.", flag_values=values)
    resize_size = "Side that 1 and 10 crops are cut from. [378/331 of image_size]"
    flags.DEFINE_integer("resize_size", None, resize_size, flag_values=values)
    resize = "For 1 and 10 crops: square, or shorter_side to keep the aspect ratio. [square]"
    flags.DEFINE_string("resize", None, resize, flag_values=values)
    flags.DEFINE_string("out", "crops.png", "The picture to write.", flag_values=values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise ValueError(f"expected one IMAGE; got {len(arguments)}")
    source, target = arguments[0], Path(values.out)
    if values.crops == 144 and (values.resize_size is not None or values.resize is not None):
        raise ValueError(
            "--resize_size and --resize are for --crops=1 and --crops=10; 144 crops have sizes of their own"
        )
    if target.suffix != SUFFIX:
        raise ValueError(f"--out={values.out} must end in {SUFFIX}")
    if target.exists():
        raise ValueError(f"--out={values.out} is there already; name a new file")
    if not target.parent.is_dir():
        raise ValueError(f"--out={values.out} is in no folder that exists; make it first")

    from polynet_keras.data.preprocessing import Preprocessing
    from polynet_keras.evaluation.contact_sheet import save_contact_sheet
    from polynet_keras.training.recipes.recipe import RESIZE_RATIO

    size = values.image_size
    resize_size = round(size * RESIZE_RATIO) if values.resize_size is None else values.resize_size
    preprocessing = Preprocessing(size, resize_size, resize=values.resize or "square")
    plan = save_contact_sheet(source, target, preprocessing, values.crops)
    sizes = ", ".join(f"{width} × {height}" for height, width in dict.fromkeys(crop.resized for crop in plan))
    what = "1 crop" if len(plan) == 1 else f"{len(plan)} crops"
    print(f"{target}: {what} of {size} × {size} px, cut from {source} resized to {sizes} px")
