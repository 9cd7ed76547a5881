"""The runs of the poster's ablation: every net with several seeds, in one folder."""

import dataclasses
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from polynet_keras.basics.checks import check_choice, check_integer
from polynet_keras.basics.holding import Hold, holding, make_folder
from polynet_keras.basics.news import tell
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.data.examples import Source
from polynet_keras.data.sources import open_source
from polynet_keras.models.cost import network_cost
from polynet_keras.pretrained.model_card import ModelCard
from polynet_keras.studies.ablation_outcomes import Outcome, save_outcomes
from polynet_keras.studies.ablation_variants import STUDIED, Variant, variants
from polynet_keras.studies.study_folder import STUDY_FILE, check_study
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.folder import (
    HISTORY_FILE,
    RECIPE_FILE,
    is_finished,
)
from polynet_keras.training.runs.history import read_history
from polynet_keras.training.runs.train import train

RESULTS_FILE = "ablation.csv"


def ablation(
    recipe: Recipe,
    output: str | os.PathLike,
    depths: Sequence[int] = (1, 2, 1),
    modules: Sequence[str] = ("poly-2", "2-way"),
    seeds: int = 3,
    stages: Sequence[str] = STUDIED,
    learning_rates: Mapping[str, float] | None = None,
) -> list[Outcome]:
    """Trains the nets of the study with several seeds, one after the other; what is done is not done again.

    Seed by seed, so that a study which is broken off has as many seeds of one net as of another. `ablation.csv` in the
    folder is written anew after every run, with the runs of this call; each run has a folder of its own there.

    Args:
        recipe: of all runs, but for structure and seed.
        output: the folder of the study: new, empty, or of an unfinished study with the same recipe.
        depths: as `variants` takes it.
        modules: as `variants` takes it.
        seeds: how many, from the recipe's on.
        stages: as `variants` takes it.
        learning_rates: learning rates by net, such as `{"ir 2-4-2": 0.002}`; other nets have the recipe's.

    Raises:
        ValueError: as `variants` and `train`; a learning rate is for a net that is not in the study; the folder
            holds something else, or another process holds it.
        OSError: another process has taken the folder.

    Examples:
        >>> from polynet_keras.training import Recipe
        >>> outcomes = ablation(Recipe(width=0.1, epochs=1), folder / "study", modules=["2-way"], seeds=1)
        >>> len(outcomes), outcomes[0].variant
        (11, 'ir 1-2-1')
        >>> (folder / "study" / "ablation.csv").exists()
        True
    """
    check_integer("seeds", seeds, at_least=1)
    if Cluster.from_environment().is_distributed:
        raise ValueError("an ablation runs in one process; start it without TF_CONFIG and Slurm's variables")
    studied = variants(depths, modules, stages)
    recipes = _recipes(recipe, studied, learning_rates or {})
    # Before the study begins: it could not be resumed with other data.
    first = _source(recipe, recipe.seed)
    folder = Path(output)
    make_folder("output", folder)
    with holding("output", folder) as hold:
        check_study(folder, recipe)
        if not (folder / STUDY_FILE).is_file():
            recipe.save(folder / STUDY_FILE)
        return _run_study(recipes, folder, hold, studied, seeds, first)


def _source(recipe: Recipe, seed: int) -> Source:
    return open_source(recipe.data, seed, recipe.layout, recipe.validation_share)


def _recipes(recipe: Recipe, studied: Sequence[Variant], rates: Mapping[str, float]) -> dict[str, Recipe]:
    """The recipe of each net, but for the seed."""
    names = [variant.name for variant in studied]
    for name in rates:
        check_choice("learning_rates", name, names)
    recipes = {}
    for variant in studied:
        settings: dict[str, Any] = {"structure": str(variant.structure)}
        if variant.name in rates:
            settings["schedule.learning_rate"] = rates[variant.name]
        recipes[variant.name] = recipe.replaced(settings)
    return recipes


def _run_study(
    recipes: Mapping[str, Recipe], folder: Path, hold: Hold, studied: Sequence[Variant], seeds: int, first: Source
) -> list[Outcome]:
    begin = recipes[studied[0].name].seed
    planned = [
        (variant, dataclasses.replace(recipes[variant.name], seed=seed), _run_folder(folder, variant, seed))
        for seed in range(begin, begin + seeds)
        for variant in studied
    ]
    for _, recipe, run in planned:  # before hours of training
        _check_recipe(recipe, run)
    outcomes: list[Outcome] = []
    source = first
    for variant, recipe, run in planned:
        if recipe.seed != begin and variant is studied[0]:
            source = _source(recipe, recipe.seed)
        tell("run %d of %d: %s, seed %d", len(outcomes) + 1, len(planned), variant.name, recipe.seed)
        outcomes.append(_outcome(variant, recipe, run, source))
        hold.check(folder)
        save_outcomes(folder / RESULTS_FILE, outcomes)
    return outcomes


def _run_folder(folder: Path, variant: Variant, seed: int) -> Path:
    return folder / f"{variant.name.replace(' ', '-')}-seed-{seed}"


def _check_recipe(recipe: Recipe, folder: Path) -> None:
    """Refuses the folder of a run of another recipe."""
    if not (folder / RECIPE_FILE).is_file():
        return
    differences = recipe.differences(Recipe.load(folder / RECIPE_FILE))
    if differences:
        raise ValueError(f"{folder} holds a run of another recipe ({'; '.join(differences)}); name a new folder")


def _outcome(variant: Variant, recipe: Recipe, folder: Path, source: Source) -> Outcome:
    card = _trained(recipe, folder, source)
    parts = network_cost(
        variant.structure,
        input_shape=(recipe.image_size, recipe.image_size, source.channels),
        width=recipe.width,
        classes=len(card.class_names),
    )
    return Outcome(
        variant.name,
        variant.stage,
        variant.same_depth,
        variant.same_compute,
        str(variant.structure),
        recipe.seed,
        sum(part.parameters for part in parts),
        sum(part.macs for part in parts),
        _seconds(folder / HISTORY_FILE, len(source.training)),
        card.held_out,
        card.held_out - card.held_out_correct,
        recipe.schedule.learning_rate,
    )


def _trained(recipe: Recipe, folder: Path, source: Source) -> ModelCard:
    """The card of a run: of one that is done, or once it is.

    Raises:
        ValueError: the run that is done was evaluated on other images than the others will be.
    """
    if not is_finished(folder):
        keras.backend.clear_session()
        return train(recipe, folder).card
    card = ModelCard.load(folder)
    if card.held_out_fingerprint not in ("", source.held_out.fingerprint):
        raise ValueError(
            f"{folder} was evaluated on other images than {source.held_out.name}, which the rest of the study is "
            "evaluated on: an older version held out `val` where there is `test` too, or the data have changed; begin "
            "the study again, in a new folder"
        )
    return card


def _seconds(history: Path, images: int) -> float:
    """Of all epochs, at the mean rate of those whose rate is known."""
    rates = [float(row["images_per_second"]) for row in read_history(history)]
    known = [images / rate for rate in rates if math.isfinite(rate)]
    return round(len(rates) * statistics.fmean(known), 1) if known else math.nan
