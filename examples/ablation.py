"""The poster's ablation on Fashion-MNIST: Inception-ResNet against Poly and K-way modules, at equal depth and compute.

    python examples/ablation.py STUDY

trains 15 nets with three seeds each for one epoch (two hours on two cores with other work beside it; Debian's
`dataset-fashion-mnist`, extra `data`), and goes on where it was broken off. It leaves `ablation.csv`, `ablation.md` and
`ablation.png` in the folder STUDY, and prints the table and whether PolyNet beats Inception-ResNet at the same compute.
docs/ablation.md has what came out; `polynet ablation --help` has other data and sizes.
"""

import sys
from pathlib import Path

from absl import logging

from polynet_keras.studies import ablation, ablation_answer, ablation_table, paired_table, plot_ablation
from polynet_keras.training import Recipe, ScheduleSettings

RECIPE = Recipe(
    data="fashion_mnist",
    width=0.25,
    batch_size=128,
    epochs=1,
    schedule=ScheduleSettings("cosine", learning_rate=0.003),
)


def main(folder: str, depths: tuple[int, int, int] = (2, 4, 2), seeds: int = 3) -> None:
    logging.set_verbosity(logging.INFO)
    outcomes = ablation(RECIPE, folder, depths, ("poly-2", "2-way"), seeds)
    found = f"{ablation_table(outcomes)}\n{paired_table(outcomes)}\n{ablation_answer(outcomes)}\n"
    Path(folder, "ablation.md").write_text(found)
    plot_ablation(outcomes, Path(folder, "ablation.png"))
    print(found)


if __name__ == "__main__":
    main(*sys.argv[1:])
