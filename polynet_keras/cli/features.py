"""`polynet features`: writes embeddings of image files."""

from absl import flags

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.names import number_of, shown
from polynet_keras.basics.stderr_filter import held_back
from polynet_keras.cli.choices import EMBEDDING_POOLINGS, ON_ERRORS
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.image_arguments import check_one_is_there, named_images
from polynet_keras.cli.model_flags import checked_model, define_card_flags, define_model_flag, define_weights_flags
from polynet_keras.cli.output_flags import check_new_file, define_output_flag, output_of

USAGE = "[--model MODEL] --output FILE [flags] IMAGE_OR_FOLDER..."
EXAMPLES = (
    "polynet features photos --output photos.npz",
    "polynet features --model fashion_mnist --stage stage_b --on_error skip photos --output textures.npz",
)

LISTED = 20
"""The largest number of skipped images in the list."""


def define_flags(values: flags.FlagValues) -> None:
    define_model_flag(values, "use", "as for `polynet predict`, but not an export, which has only classes")
    define_card_flags(values)
    define_weights_flags(values)
    what = Heading(values, "Embeddings")
    stage = "Stage whose output to take: of a PolyNet stem, stage_a, stage_b, stage_c; or the name of a layer."
    what.string("stage", None, f"{stage} [the classifier's input]")
    pooling = "Pooling of a map to an embedding: `avg` or `max`, the mean or the largest value of each channel."
    what.string("pooling", "avg", pooling, choices=EMBEDDING_POOLINGS)
    images = Heading(values, "Images")
    images.integer("batch_size", 32, "Images in one forward pass.")
    skip = "What to do about an unreadable image: `error` stops, `skip` leaves it out and lists it."
    images.string("on_error", "error", skip, choices=ON_ERRORS)
    define_output_flag(values, "File to write: file.npz with paths and embeddings.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    from polynet_keras.evaluation.embedding_options import check_embedding_options
    from polynet_keras.pretrained.model_source import Kind

    check_embedding_options(values.stage, values.pooling, values.batch_size, values.on_error)
    check_new_file("output", output_of(values, "the file to write, a file.npz"), (".npz",))
    require_extra("data", "PIL")
    images = named_images(arguments)
    source, about = checked_model(values)
    if source.kind is Kind.EXPORT:
        raise ValueError(
            f"{shown(source.name)} is exported and has only classes; name the model that it was exported from"
        )
    if values.on_error == "error" and images.refused:
        raise ValueError(next(iter(images.refused.values())))
    check_one_is_there(images)

    from polynet_keras.evaluation.extracting import embed
    from polynet_keras.evaluation.loading import load_source

    model = load_source(source, about)
    print(f"model: {shown(model.name)}")
    with held_back():
        features, unread = embed(model, images, values.stage, values.pooling, values.batch_size, values.on_error)
    features.save(values.output)
    for path, error in unread[:LISTED]:
        print(f"left out: {shown(path)}   {error}")
    if len(unread) > LISTED:
        print(f"and {len(unread) - LISTED:,} more")
    count, channels = features.embeddings.shape
    how = f"{features.pooling} of {features.stage}" if features.pooling else features.stage
    print(f"file:  {shown(values.output)}, {number_of(count, 'image')}, {channels:,} numbers each: {how}")
