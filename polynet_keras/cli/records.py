"""`polynet records`: writes a folder of images as TFRecord files, and verifies or describes such files."""

from typing import TYPE_CHECKING

from absl import flags

from polynet_keras.basics.names import number_of, shown
from polynet_keras.cli.choices import LAYOUTS, ON_ERRORS
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.output_flags import define_output_flag, output_of
from polynet_keras.cli.quiet import without_greetings
from polynet_keras.cli.recipe_flags import LAYOUT

if TYPE_CHECKING:
    from polynet_keras.data.records.manifest import Manifest

USAGE = """FOLDER_OR_TABLE --output RECORDS [flags]
       polynet records --verify RECORDS
       polynet records --describe RECORDS --class_names NAMES --first_label 0|1"""
EXAMPLES = (
    "polynet records photos --output records",
    "polynet records photos --output small --max_side 600",
    "polynet records --verify records",
)

LISTED = 20
"""The largest number of skipped images in the list."""


def define_flags(values: flags.FlagValues) -> None:
    define_output_flag(values, "Folder for the records of FOLDER.")
    images = Heading(values, "Images")
    images.string("split", "train", "Name of the split for a folder of classes without splits.")
    images.string("layout", "auto", LAYOUT, choices=LAYOUTS)
    class_names = (
        "Text file of the classes' folders, one per line, in the order of their labels. For --describe: of the names "
        "of the classes, or `imagenet`. [FOLDER/classes.txt, or sorted]"
    )
    images.string("class_names", None, class_names)
    skip = "What to do about an unreadable image: `error` or `skip`."
    images.string("on_error", "error", skip, choices=ON_ERRORS)
    images.integer("seed", 0, "Seed of the order of the images.")
    smaller = Heading(values, "Smaller images")
    largest = (
        "Longest side, in pixels: larger images are shrunk to it, once, and written as JPEG. [images are not changed]"
    )
    smaller.integer("max_side", None, largest)
    smaller.integer("quality", 95, "Quality of these JPEG files, 1 to 100.")
    writing = Heading(values, "Writing")
    writing.integer("shards", None, "Files of each split. [enough for files of about 128 MiB]")
    writing.integer("processes", None, "Processes that write at once. [one per core]")
    there = Heading(values, "Existing records")
    there.switch("verify", False, "Read RECORDS and compare their checksums.")
    there.switch("describe", False, "Write a manifest into RECORDS from another program.")
    there.integer("first_label", None, "Label of the first class in RECORDS, for --describe: 1 in tf-models' ImageNet.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if values.verify and values.describe:
        raise ValueError("--verify and --describe exclude each other; give one")
    if values.first_label is not None and not values.describe:
        raise ValueError("--first_label is for --describe")
    there = values.verify or values.describe
    if len(arguments) != 1:
        given = number_of(len(arguments), "argument")
        raise ValueError(f"expected one {'RECORDS' if there else 'FOLDER'}; got {given}")
    if there and values.output is not None:
        raise ValueError(
            "--output is for a folder of images; --verify and --describe take RECORDS, and write no folder"
        )
    if there and values.max_side is not None:
        raise ValueError("--max_side is for images that are written as records, not for existing records")
    if values["quality"].present and values.max_side is None:
        raise ValueError("--quality is for images that are shrunk: add --max_side")
    if values.verify:
        _verify(arguments[0])
        return
    if values.describe:
        _describe(arguments[0], values)
        return
    (folder,) = arguments
    out = output_of(values, "the folder to write")

    from polynet_keras.data.folders import read_class_names
    from polynet_keras.data.records.write import write_records

    with without_greetings():  # each writing process imports TensorFlow itself
        manifest = write_records(
            folder,
            out,
            split=values.split,
            layout=values.layout,
            class_names=None if values.class_names is None else read_class_names(values.class_names),
            shards=values.shards,
            seed=values.seed,
            on_error=values.on_error,
            processes=values.processes,
            max_side=values.max_side,
            quality=values.quality,
        )
    _print(out, manifest)


def _describe(out: str, values: flags.FlagValues) -> None:
    if values.class_names is None or values.first_label not in (0, 1):
        raise ValueError("--describe needs --class_names (a file, or `imagenet`) and --first_label, 0 or 1")
    from polynet_keras.data.folders import read_class_names
    from polynet_keras.data.imagenet import imagenet_classes
    from polynet_keras.data.records.describe import describe_records

    if values.class_names == "imagenet":
        names = tuple(name for _, name in imagenet_classes())
    else:
        names = read_class_names(values.class_names)
    _print(out, describe_records(out, names, values.first_label))


def _print(out: str, manifest: "Manifest") -> None:
    print(f"{out}: {number_of(len(manifest.class_names), 'class', 'classes')}")
    if manifest.shrinking is not None:
        print(f"images larger than {manifest.shrinking.max_side} px are shrunk to this side")
    for name, split in manifest.splits.items():
        size = sum(shard.bytes for shard in split.shards)
        print(
            f"{name}: {number_of(split.count, 'image')}, {number_of(split.shard_count, 'shard')}, {size / 1e6:,.1f} MB"
        )
        if split.skipped:
            print(f"{name}: {number_of(len(split.skipped), 'image')} skipped, all listed in the manifest:")
            for path, reason in list(split.skipped.items())[:LISTED]:
                print(f"  {shown(path)}: {reason}")


def _verify(out: str) -> None:
    from polynet_keras.data.records.manifest import load_manifest, verify_records

    damages = verify_records(out)
    for line in damages:
        print(line)
    count = sum(split.shard_count for split in load_manifest(out).splits.values())
    if damages:
        raise ValueError(
            f"{len(damages)} of {number_of(count, 'shard')} in {out} {'is' if len(damages) == 1 else 'are'} "
            "damaged; the command that wrote them can write them again"
        )
    print(f"{out}: {number_of(count, 'shard')} read, nothing has changed")
