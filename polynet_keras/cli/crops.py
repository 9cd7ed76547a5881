"""`polynet crops`: draws the crops that a network gets from an image."""

from absl import flags

from polynet_keras.basics.checks import check_integer
from polynet_keras.basics.names import number_of
from polynet_keras.cli.choices import CROPS
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.output_flags import check_new_file, define_output_flag, output_of

USAGE = "IMAGE [flags]"
EXAMPLES = (
    "polynet crops photo.jpg",
    "polynet crops photo.jpg --crops 10 --image_size 131 --output ten.png",
)
SUFFIX = ".png"


def define_flags(values: flags.FlagValues) -> None:
    define_output_flag(values, f"Picture to write, which ends in {SUFFIX}.", "crops.png")
    crops = Heading(values, "Crops")
    crops.integer("crops", 144, "Number of crops: 1, 10 or 144.", choices=CROPS)
    crops.integer("image_size", 331, "Side of a crop, in pixels.")
    size = "Side, in pixels, that the image is resized to for 1 and 10 crops. [378/331 of --image_size]"
    crops.integer("resize_size", None, size)
    how = "How the image is resized for 1 and 10 crops: `square`, or `shorter_side` to keep its aspect ratio. [square]"
    crops.string("resize", None, how, choices=("square", "shorter_side"))


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise ValueError(f"expected one IMAGE; got {len(arguments)}")
    (source,) = arguments
    check_integer("image_size", values.image_size, 1)
    if values.crops == 144 and (values.resize_size is not None or values.resize is not None):
        raise ValueError("--resize_size and --resize are for --crops=1 and --crops=10; 144 crops have their own sizes")
    target = check_new_file("output", output_of(values, "the picture to write"), [SUFFIX])

    from polynet_keras.data.protocol import Preprocessing
    from polynet_keras.evaluation.contact_sheet import save_contact_sheet
    from polynet_keras.training.recipes.recipe import RESIZE_RATIO

    size = values.image_size
    resize_size = round(size * RESIZE_RATIO) if values.resize_size is None else values.resize_size
    preprocessing = Preprocessing(size, resize_size, resize=values.resize or "square")
    plan = save_contact_sheet(source, target, preprocessing, values.crops)
    sizes = ", ".join(f"{width} x {height}" for height, width in dict.fromkeys(crop.resized for crop in plan))
    print(f"{target}: {number_of(len(plan), 'crop')} of {size} x {size} px, cut from {source} resized to {sizes} px")
