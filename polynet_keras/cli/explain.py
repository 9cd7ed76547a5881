"""`polynet explain`: shows which parts of image files support a class."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from polynet_keras.basics.checks import check_choice, near_name
from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.names import listed, number_of, shown
from polynet_keras.basics.stderr_filter import held_back
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.image_arguments import check_all_were_read, check_one_is_there, named_images
from polynet_keras.cli.model_flags import checked_model, define_card_flags, define_model_flag, define_weights_flags
from polynet_keras.cli.output_flags import check_new_file, define_output_flag, output_of

if TYPE_CHECKING:
    from polynet_keras.evaluation.explanations import Explanation
    from polynet_keras.pretrained.description import Description
    from polynet_keras.pretrained.model_source import ModelSource

USAGE = "[--model MODEL] --output PAGE [flags] IMAGE_OR_FOLDER..."
EXAMPLES = (
    "polynet explain photos/cat/1.jpg --output cat.html",
    "polynet explain photos --class_name dog --stage stage_a,stage_b --method grad-cam,occlusion --output dogs.html",
)

MOST = 500
"""The largest number of maps in a page, which contains its pictures: some 20 MB."""
LISTED = 10
"""The largest number of class names in the message about an unknown class."""


def define_flags(values: flags.FlagValues) -> None:
    define_model_flag(values, "explain", "as for `polynet predict`; an export is explained by occlusion")
    define_card_flags(values)
    define_weights_flags(values)
    what = Heading(values, "What to show")
    what.string("class_name", None, "Class to explain, or its number, from 0. [the most probable one of each image]")
    stage = "Stages to look at: of a PolyNet stem, stage_a, stage_b, stage_c; or names of layers."
    what.list("stage", None, f"{stage} [the last one that has 5 x 5 places]")
    what.list("method", ["grad-cam"], "Ways to look at them: grad-cam, grad-cam++, occlusion (50 forward passes).")
    define_output_flag(values, "Page to write: file.html with each image beside its maps.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    from polynet_keras.evaluation.explanation_methods import METHODS, OCCLUSION
    from polynet_keras.pretrained.model_source import Kind

    for method in values.method:
        check_choice("method", method, METHODS)
    if not values.method:
        raise ValueError(f"--method is empty; name one of {', '.join(METHODS)}, or several")
    by_gradient = [method for method in values.method if method != OCCLUSION]
    if values.stage is not None and not (values.stage and all(values.stage)):
        raise ValueError("--stage is empty; name a stage, such as stage_c, or several")
    if values.stage is not None and not by_gradient:
        raise ValueError(f"--stage is for the other methods: --method={OCCLUSION} hides parts of the image itself")
    check_new_file("output", output_of(values, "the page to write, a file.html"), (".html",))
    require_extra("data", "PIL", "matplotlib")
    images = named_images(arguments)
    stages = list(dict.fromkeys(values.stage or [None]))
    views = len(set(by_gradient)) * len(stages) + (OCCLUSION in values.method)
    if len(images) * views > MOST:
        raise ValueError(
            f"{len(images):,} images with {number_of(views, 'map')} each are too many for a page; name at most "
            f"{number_of(MOST // views, 'image')}"
        )
    source, about = checked_model(values)
    if source.kind is Kind.EXPORT and by_gradient:
        raise ValueError(
            f"--method={by_gradient[0]} needs gradients, but {shown(source.name)} is exported and has none; use "
            f"--method={OCCLUSION}, or name the model that it was exported from"
        )
    check_one_is_there(images)
    class_index = None
    if values.class_name is not None and (names := _class_names(source, about)) is not None:
        class_index = _index_of(values.class_name, names)

    from polynet_keras.evaluation.explaining import View
    from polynet_keras.evaluation.explanation_page import write_explanation_page
    from polynet_keras.evaluation.explanations import default_stage, explanations
    from polynet_keras.evaluation.loading import load_source

    model = load_source(source, about)
    if values.class_name is not None:
        class_index = _index_of(values.class_name, model.class_names)
    looks = [View(stage, method) for method in dict.fromkeys(by_gradient) for stage in stages]
    default = default_stage(model) if looks and values.stage is None else None
    if OCCLUSION in values.method:
        looks.append(View(None, OCCLUSION))
    seen = [look if look.method == OCCLUSION else View(look.stage or default, look.method) for look in looks]
    print(f"model: {shown(model.name)}")
    width = max(len(shown(path)) for path in images.paths)
    found: list[Explanation] = []
    with held_back():
        for one in explanations(model, images, class_index, looks):
            found.append(one)
            said = one.error
            if one.probabilities is not None:
                said = f"{shown(model.class_names[one.label])} {one.probabilities[one.label]:.2%}"
            if one.error is None or len(images) > 1:  # for one image, the last line has the error
                print(f"{shown(one.image):<{width}}   {said}")
    write_explanation_page(values.output, model, found, seen)
    print(f"page:  {shown(values.output)}")
    unreadable = [(one.image, one.error) for one in found if one.error is not None]
    check_all_were_read(len(images), unreadable, len(unreadable))


def _class_names(source: "ModelSource", about: "Description") -> Sequence[str] | None:
    """Returns a model's class names, if they are known before it is loaded."""
    from polynet_keras.pretrained.description import card_of
    from polynet_keras.pretrained.model_source import Kind

    if about.class_names is not None:
        return about.class_names
    return card_of(source).class_names if source.kind in (Kind.RUN, Kind.MODEL, Kind.PUBLISHED) else None


def _index_of(name: str, names: Sequence[str]) -> int:
    """Returns the class with a name, or with a number if no class, or several classes, have this name.

    Raises:
        ValueError: there is no such class.
    """
    if names.count(name) == 1:
        return names.index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    if name in names:
        numbers = [str(i) for i, one in enumerate(names) if one == name]
        raise ValueError(f"--class_name={name} is the name of several classes; give a number: {', '.join(numbers)}")
    raise ValueError(
        f"--class_name={shown(name)} is not one of the model's {number_of(len(names), 'class', 'classes')}, "
        f"{listed(names, LISTED)}{near_name(name, names)}"
    )
