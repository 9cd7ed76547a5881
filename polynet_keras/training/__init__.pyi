from .fine_tuning import Phase, fit_in_phases, freeze
from .growth import grown
from .insertion import insert, insert_optimizer, plan_insertion
from .optimizers import RMSprop
from .recipes.optimizer import OptimizerSettings
from .recipes.presets import PRESETS, Preset
from .recipes.recipe import Recipe
from .recipes.regularization import Regularization
from .recipes.schedule import ScheduleSettings
from .recipes.start import Start
from .runs.execution import Execution
from .runs.train import train
from .stochastic_depth import AdaptiveStochasticDepth, set_drop_rate

__all__ = [
    "PRESETS",
    "AdaptiveStochasticDepth",
    "Execution",
    "OptimizerSettings",
    "Phase",
    "Preset",
    "RMSprop",
    "Recipe",
    "Regularization",
    "ScheduleSettings",
    "Start",
    "fit_in_phases",
    "freeze",
    "grown",
    "insert",
    "insert_optimizer",
    "plan_insertion",
    "set_drop_rate",
    "train",
]
