"""The poster's ablation: Inception-ResNet against Poly and K-way modules, stage by stage, at equal depth and compute.

Source: the authors' poster on PolyNet, CVPR 2017: "Two effective ways to extend the structure: Poly and K-way, were
evaluated", and "PolyNet design yields higher accuracy than Inception-ResNet given the same computation budget".
"""

import csv
import dataclasses
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
from absl import logging

from polynet_keras.basics.checks import check_integer
from polynet_keras.basics.files import written_whole
from polynet_keras.basics.holding import holding, make_folder
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.data.examples import Source
from polynet_keras.data.sources import open_source
from polynet_keras.models.cost import network_cost
from polynet_keras.models.polynomial import NAMED, Polynomial, PolynomialSyntaxError
from polynet_keras.models.structure import STAGES, Structure
from polynet_keras.pretrained.model_card import ModelCard
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.folder import (
    HISTORY_FILE,
    RECIPE_FILE,
    check_holds_only,
    is_finished,
)
from polynet_keras.training.runs.history import read_history
from polynet_keras.training.runs.train import train

BASELINE = "ir"
MIXED = "mixed"
G5 = {"a": ("2-way",), "b": ("poly-3", "2-way"), "c": ("poly-3", "2-way")}
"""The modules of the poster's best net, in turn."""
STUDY_FILE = "study.json"
RESULTS_FILE = "ablation.csv"


@dataclass(frozen=True)
class Variant:
    """A net of the study.

    Attributes:
        name: such as `"B poly-3"`, or of an Inception-ResNet its depths, `"ir 2-4-2"`.
        structure: its residual units.
        stage: `"A"`, `"B"`, `"C"` or `"mixed"`, in which it is no Inception-ResNet; `""` if it is one.
        same_depth: the Inception-ResNet with as many residual units; `""` for one itself.
        same_compute: the Inception-ResNet of as many multiply-accumulates; `""` for one itself.
    """

    name: str
    structure: Structure
    stage: str = ""
    same_depth: str = ""
    same_compute: str = ""


@dataclass(frozen=True)
class Outcome:
    """A trained net of the study: a row of `ablation.csv`.

    Attributes:
        variant, stage, same_depth, same_compute, structure: of the `Variant`; the structure in the notation.
        seed: of the run.
        parameters: that are trained.
        macs: multiply-accumulates of one image.
        seconds: of the training steps, from the images a second of the run's processes, without validation and tracing.
        images: that were held out.
        errors: how many of them the net got wrong, at the end of the run.
    """

    variant: str
    stage: str
    same_depth: str
    same_compute: str
    structure: str
    seed: int
    parameters: int
    macs: int
    seconds: float
    images: int
    errors: int

    @property
    def error(self) -> float:
        """Share of the held-out images."""
        return self.errors / self.images


def variants(depths: Sequence[int], modules: Sequence[str]) -> list[Variant]:
    """The nets of the study.

    For each module, and each of the three stages and all of them together ("mixed"), there is a net in which all
    residual units there are of that module; and one mixed as the poster's G5 is. They are as deep as the
    Inception-ResNet of `depths`. For each there is an Inception-ResNet of as many multiply-accumulates, which is
    deeper: a unit of n Inception blocks costs what n units of one do.

    Args:
        depths: of the Inception-ResNet that all is compared with: its residual units in stage A, B and C.
        modules: names or polynomials, without `ir`.

    Raises:
        ValueError: no such depths or modules.
    """
    base = Structure.inception_resnet(depths)
    try:
        names = list(dict.fromkeys(Polynomial.parse(module).name for module in modules))
    except PolynomialSyntaxError as error:
        known = ", ".join(name for name in NAMED if name != BASELINE)
        raise ValueError(f"modules: {error}; a module is one of {known}, or a polynomial such as I + F + GF") from None
    if not names or BASELINE in names:
        raise ValueError(f"modules={','.join(modules)!r} must be one or more, such as poly-2, and not {BASELINE}")
    patterns: list[tuple[str, dict[str, tuple[str, ...]]]] = []
    for stages in (*((stage,) for stage in STAGES), STAGES):
        patterns += [(name, dict.fromkeys(stages, (name,))) for name in names]
    patterns.append(("g5", G5))
    found = {base: Variant(_inception_resnet_name(base), base)}
    for name, pattern in patterns:
        stage = MIXED if len(pattern) > 1 else next(iter(pattern)).upper()
        structure = _replaced(base, pattern)
        equal = Structure.inception_resnet([sum(map(_blocks, units)) for units in structure.stages])
        found.setdefault(equal, Variant(_inception_resnet_name(equal), equal))
        found[structure] = Variant(f"{stage} {name}", structure, stage, found[base].name, found[equal].name)
    return list(found.values())


def _replaced(base: Structure, pattern: Mapping[str, Sequence[str]]) -> Structure:
    """The structure with other units: in a stage of the pattern, its modules in turn."""
    stages = []
    for stage, units in zip(STAGES, base.stages, strict=True):
        modules = [Polynomial.parse(module) for module in pattern.get(stage, ())]
        stages.append(tuple(modules[i % len(modules)] for i in range(len(units))) if modules else units)
    return Structure(tuple(stages))


def _blocks(unit: Polynomial) -> int:
    """How often a unit applies an Inception block."""
    return len(unit.applications)


def _inception_resnet_name(structure: Structure) -> str:
    return f"{BASELINE} {'-'.join(str(len(units)) for units in structure.stages)}"


def ablation(
    recipe: Recipe, output: str | os.PathLike, depths: Sequence[int], modules: Sequence[str], seeds: int = 3
) -> list[Outcome]:
    """Trains the nets of the study with several seeds, one after the other; what is done is not done again.

    Seed by seed, so that a study which is broken off has as many seeds of one net as of another. `ablation.csv` in the
    folder is written anew after every run; each run has a folder of its own there.

    Args:
        recipe: of all runs, but for structure and seed.
        output: the folder of the study: new, empty, or of an unfinished study with the same recipe.
        depths: as `variants` takes it.
        modules: as `variants` takes it.
        seeds: how many, from the recipe's on.

    Raises:
        ValueError: as `variants` and `train`; the folder holds something else, or another process holds it.
    """
    check_integer("seeds", seeds, at_least=1)
    if Cluster.from_environment().is_distributed:
        raise ValueError("an ablation runs in one process; start it without TF_CONFIG and Slurm's variables")
    studied = variants(depths, modules)
    first = open_source(recipe.data, recipe.seed)  # before a study is begun that could not go on with other data
    folder = Path(output)
    make_folder("output", folder)
    with holding("output", folder):
        _open_study(folder, recipe)
        return _run_study(recipe, folder, studied, seeds, first)


def _run_study(recipe: Recipe, folder: Path, studied: Sequence[Variant], seeds: int, first: Source) -> list[Outcome]:
    outcomes: list[Outcome] = []
    total = seeds * len(studied)
    for seed in range(recipe.seed, recipe.seed + seeds):
        source = first if seed == recipe.seed else open_source(recipe.data, seed)
        for variant in studied:
            run = folder / f"{variant.name.replace(' ', '-')}-seed-{seed}"
            logging.info("run %d of %d: %s, seed %d", len(outcomes) + 1, total, variant.name, seed)
            settings = dataclasses.replace(recipe, structure=str(variant.structure), seed=seed)
            outcomes.append(_outcome(variant, settings, run, len(source.training), source.channels))
            save_outcomes(folder / RESULTS_FILE, outcomes)
    return outcomes


def _open_study(folder: Path, recipe: Recipe) -> None:
    """Begins a new study in an empty folder, or sees that the folder is of one with the same recipe."""
    if (folder / STUDY_FILE).is_file():
        differences = recipe.differences(Recipe.load(folder / STUDY_FILE))
        if differences:
            raise ValueError(f"output={os.fspath(folder)!r} holds a study of another recipe ({'; '.join(differences)})")
        return
    check_holds_only("output", folder, ())
    recipe.save(folder / STUDY_FILE)


def save_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Writes a row for each outcome."""
    with written_whole(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in dataclasses.fields(Outcome)])
        writer.writerows(dataclasses.astuple(outcome) for outcome in outcomes)


def _outcome(variant: Variant, recipe: Recipe, folder: Path, images: int, channels: int) -> Outcome:
    card = _trained(recipe, folder)
    parts = network_cost(
        variant.structure,
        input_shape=(recipe.image_size, recipe.image_size, channels),
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
        _seconds(folder / HISTORY_FILE, images),
        card.held_out,
        card.held_out - card.held_out_correct,
    )


def _trained(recipe: Recipe, folder: Path) -> ModelCard:
    """The card of a run: of one that is done, or once it is."""
    if not is_finished(folder):
        keras.backend.clear_session()
        return train(recipe, folder).card
    differences = recipe.differences(Recipe.load(folder / RECIPE_FILE))
    if differences:
        raise ValueError(f"{folder} holds a run of another recipe ({'; '.join(differences)}); name a new folder")
    return ModelCard.load(folder)


def _seconds(history: Path, images: int) -> float:
    """Of all epochs, at the mean rate of those whose rate is known."""
    rates = [float(row["images_per_second"]) for row in read_history(history)]
    known = [images / rate for rate in rates if math.isfinite(rate)]
    return round(len(rates) * statistics.fmean(known), 1) if known else math.nan
