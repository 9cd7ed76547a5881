from .ablation_report import ablation_answer, ablation_table, comparisons, confidence_interval, plot_ablation
from .ablation_runs import ablation, variants

__all__ = [
    "ablation",
    "ablation_answer",
    "ablation_table",
    "comparisons",
    "confidence_interval",
    "plot_ablation",
    "variants",
]
