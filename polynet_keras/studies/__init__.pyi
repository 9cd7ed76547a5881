from .ablation_report import ablation_answer, ablation_table, comparisons, confidence_interval, plot_ablation
from .ablation_runs import ablation
from .ablation_variants import variants
from .input_benchmark import benchmark_input

__all__ = [
    "ablation",
    "ablation_answer",
    "ablation_table",
    "benchmark_input",
    "comparisons",
    "confidence_interval",
    "plot_ablation",
    "variants",
]
