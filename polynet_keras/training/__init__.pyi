from .fine_tuning import Phase, fit_in_phases, freeze
from .growth import grown
from .insertion import insert, insert_optimizer
from .insertion_plan import plan_insertion
from .lamb import Lamb
from .learning_rate_factors import SGD, AdamW
from .optimizers import RMSprop
from .recipes.optimizer import OptimizerSettings
from .recipes.phases import PhaseSettings
from .recipes.photos import photos_recipe
from .recipes.presets import PRESETS, Preset
from .recipes.recipe import Recipe
from .recipes.regularization import Regularization
from .recipes.schedule import ScheduleSettings
from .recipes.start import Start
from .runs.dry_run import DryRun, dry_run
from .runs.execution import Execution
from .runs.find_learning_rate import find_learning_rate
from .runs.learning_rate_range import LearningRateRange
from .runs.train import train
from .stochastic_depth import AdaptiveStochasticDepth, set_drop_rate

__all__ = [
    "PRESETS",
    "SGD",
    "AdamW",
    "AdaptiveStochasticDepth",
    "DryRun",
    "Execution",
    "Lamb",
    "LearningRateRange",
    "OptimizerSettings",
    "Phase",
    "PhaseSettings",
    "Preset",
    "RMSprop",
    "Recipe",
    "Regularization",
    "ScheduleSettings",
    "Start",
    "dry_run",
    "find_learning_rate",
    "fit_in_phases",
    "freeze",
    "grown",
    "insert",
    "insert_optimizer",
    "photos_recipe",
    "plan_insertion",
    "set_drop_rate",
    "train",
]
