from .ablation_outcomes import load_outcomes, save_outcomes
from .ablation_report import ablation_answer, ablation_table, paired_table, plot_ablation
from .ablation_runs import ablation
from .ablation_variants import variants
from .input_benchmark import benchmark_input
from .paired_seeds import comparisons, confidence_interval, needed_seeds

__all__ = [
    "ablation",
    "ablation_answer",
    "ablation_table",
    "benchmark_input",
    "comparisons",
    "confidence_interval",
    "load_outcomes",
    "needed_seeds",
    "paired_table",
    "plot_ablation",
    "save_outcomes",
    "variants",
]
