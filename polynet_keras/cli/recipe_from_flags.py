"""Makes a recipe from flags; a preset, a run, weights or photographs set the values without a flag."""

import json
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from absl import flags, logging

from polynet_keras.basics.checks import near_name
from polynet_keras.basics.names import shown
from polynet_keras.cli.recipe_flags import SETTINGS, flag_of

if TYPE_CHECKING:
    from polynet_keras.training.recipes.phases import PhaseSettings
    from polynet_keras.training.recipes.recipe import Recipe


def recipe_of(values: flags.FlagValues, begin: "Recipe | None" = None) -> "Recipe":
    """Returns the recipe of the flags: the named recipe, changed by the given flags.

    Args:
        values: the command's flags.
        begin: the recipe to change, instead of the named one.

    Raises:
        ValueError: the recipe does not exist, or a value is out of range.
    """
    settings = _given(values)
    if begin is None and values.recipe is None and settings.get("start.weights"):
        settings = {**_network_of(settings["start.weights"], settings), **settings}
    return (begin or recipe_named(values.recipe)).replaced(settings)


def _given(values: flags.FlagValues) -> dict[str, Any]:
    """Returns the settings of the given flags."""
    settings: dict[str, Any] = {}
    for setting, (_, default, _) in (item for texts in SETTINGS.values() for item in texts.items()):
        flag = flag_of(setting)
        if flag in values and values[flag].present:
            given = values[flag].value
            if default is None and given == "":  # it undoes a preset's choice
                given = None
            settings[setting] = MADE_OF_TEXT[flag](given) if flag in MADE_OF_TEXT else given
    return settings


def recipe_for_data(values: flags.FlagValues, announce: bool = True) -> "Recipe":
    """Returns the recipe of the flags. If they name no recipe and no weights, photographs decide the other settings.

    Args:
        values: the command's flags.
        announce: whether to log the choices and the reasons.

    Raises:
        ValueError: as for `recipe_of`, or the photographs cannot be listed.
    """
    from polynet_keras.data.source_names import check_data, has_name

    settings = _given(values)
    data, layout = settings.get("data", "digits"), settings.get("layout", "auto")
    if values.recipe is not None or settings.get("start.weights") or has_name(data):
        return recipe_of(values)
    check_data("data", data, layout)

    from polynet_keras.basics.extras import require_extra
    from polynet_keras.training.recipes.photos import photos_recipe

    require_extra("data", "PIL")
    chosen, reasons = photos_recipe(data, layout, settings)
    if announce:
        facts = chosen.facts()
        lines = [f"  --{flag_of(name)}={json.loads(facts[name])}" for name in reasons]
        width = max(map(len, lines), default=0)
        lines = [f"{line:<{width}}  {why}" for line, why in zip(lines, reasons.values(), strict=True)]
        logging.info("%s", "\n".join([f"recipe for {shown(data)}: the preset photos, with", *lines]))
    return chosen


def _network_of(weights: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the known settings of the weights' network.

    Args:
        weights: the value of the flag `--weights`.
        told: the settings that the flags give.

    Raises:
        ValueError: the weights do not exist, or are of the released net, which the defaults do not train well.
    """
    from polynet_keras.pretrained.description import card_of
    from polynet_keras.pretrained.model_card import card_file
    from polynet_keras.pretrained.model_source import RECIPE_FILE, Kind, find_model
    from polynet_keras.training.recipes.recipe import Recipe

    source = find_model(weights, "weights")
    if source.kind is Kind.RUN and (source.path / RECIPE_FILE).is_file():
        run = Recipe.load(source.path / RECIPE_FILE)
        found = {name: getattr(run, name) for name in ("structure", "width", "image_size", "residual_scale")}
        if run.evaluation_size is not None and "image_size" not in told:
            found["evaluation_size"] = run.evaluation_size
    elif source.kind is Kind.PUBLISHED or (source.kind is Kind.MODEL and card_file(source.path).is_file()):
        card = card_of(source)
        found = {"structure": card.structure, "width": card.width, "image_size": card.preprocessing.image_size}
        found = {name: value for name, value in found.items() if value}
    else:
        return {}
    if "structure" in told:
        found.pop("residual_scale", None)  # it may have a number for each module
    elif source.kind is Kind.PUBLISHED and len(card.class_names) == 1000:
        raise ValueError(
            f"--weights={weights} is the released net, which is fine-tuned with --recipe=finetune; to train it in "
            "another way, add its --structure=polynet-g5"
        )
    found = {name: value for name, value in found.items() if name not in told}
    if found:
        logging.info("from %s: %s", shown(weights), ", ".join(f"{name} {value}" for name, value in found.items()))
    return found


def recipe_named(name: str | None) -> "Recipe":
    """Returns a preset, or the recipe in a file; without a name, the defaults.

    Raises:
        ValueError: the name is neither a preset nor a file.
    """
    from polynet_keras.training.recipes.presets import PRESETS
    from polynet_keras.training.recipes.recipe import Recipe

    if name is None:
        return Recipe()
    if name in PRESETS:
        return PRESETS[name].recipe
    if not os.path.isfile(name):
        raise ValueError(f"recipe={name!r} is neither a file nor one of {', '.join(PRESETS)}{near_name(name, PRESETS)}")
    return Recipe.load(name)


def residual_scale_of(values: list[str]) -> float | tuple[float, ...] | None:
    """Returns the value of the flag with this name.

    Raises:
        ValueError: it is not numbers.
    """
    if values == ["released"]:
        return None
    try:
        numbers = tuple(map(float, values))
    except ValueError:
        raise ValueError(
            f"--residual_scale={','.join(values)} must be numbers split by commas, or `released`"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def class_weights_of(value: str | None) -> str | dict[str, float] | None:
    """Returns the value of the flag with this name.

    Raises:
        ValueError: it is neither `balanced` nor a file of weights.
    """
    from polynet_keras.data.class_weights import BALANCED, read_class_weights

    return value if value in (None, BALANCED) else read_class_weights(value)


def learning_rate_factors_of(value: str | None) -> dict[str, float] | None:
    """Returns the value of the flag with this name.

    Raises:
        ValueError: it does not give numbers by part, or gives a part twice.
    """
    return numbers_by_name("learning_rate_factors", value, "PART=NUMBER", "stem=0.1,stage_a=0.3")


def numbers_by_name(flag: str, value: str | None, form: str, example: str) -> dict[str, float] | None:
    """Returns the value of a flag that gives numbers by name.

    Raises:
        ValueError: it is not of this form, or gives a name twice.
    """
    if value is None:
        return None
    numbers: dict[str, float] = {}
    for item in value.split(","):
        name, _, text = (part.strip() for part in item.partition("="))
        try:
            number = float(text)
        except ValueError:
            raise ValueError(f"--{flag}={value} must be {form}, split by commas, such as {example}") from None
        if name in numbers:
            raise ValueError(f"--{flag}={value} names {name} twice")
        numbers[name] = number
    return numbers


def unfreezing_of(value: str | None) -> tuple["PhaseSettings", ...] | None:
    """Returns the value of the flag with this name.

    Raises:
        ValueError: it is not phases.
    """
    from polynet_keras.training.recipes.phases import PhaseSettings

    if value is None:
        return None
    phases = []
    for item in value.split(","):
        part, *numbers = (text.strip() for text in item.split(":"))
        try:
            epochs, rate = int(numbers[0]), float(numbers[1]) if numbers[1:] else None
            if len(numbers) > 2:
                raise ValueError
        except (ValueError, IndexError):
            raise ValueError(
                f"--unfreezing={value} must be PART:EPOCHS or PART:EPOCHS:LEARNING_RATE, split by commas, such as "
                "stage_c:3,reduction_b:3:0.001"
            ) from None
        phases.append(PhaseSettings(part, epochs, rate))
    return tuple(phases)


MADE_OF_TEXT: dict[str, Callable[[Any], Any]] = {
    "residual_scale": residual_scale_of,
    "class_weights": class_weights_of,
    "learning_rate_factors": learning_rate_factors_of,
    "unfreezing": unfreezing_of,
}
"""The function that makes a setting from a flag's text, by flag."""
