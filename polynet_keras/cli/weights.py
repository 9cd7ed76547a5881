"""`polynet weights`: lists the published checkpoints."""

from pathlib import Path

from absl import flags

from polynet_keras.basics.names import number_of
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.table import print_table

USAGE = "[NAME] [flags]"
EXAMPLES = (
    "polynet weights",
    "polynet weights imagenet",
)


def define_flags(values: flags.FlagValues) -> None:
    Heading(values, "Output").string("cards", None, "Folder for all provenance cards.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise ValueError(f"unexpected argument {arguments[1]!r}; name one checkpoint, or none to list them")

    from polynet_keras.pretrained.provenance import provenance_card
    from polynet_keras.pretrained.registry import ALIASES, CHECKPOINTS, published

    if values.cards is not None:
        folder = Path(values.cards)
        if arguments or not folder.is_dir():
            raise ValueError(f"--cards={values.cards} must be a folder that exists, without another argument")
        for checkpoint in CHECKPOINTS:
            (folder / f"{checkpoint.name}.md").write_text(provenance_card(checkpoint))
        print(f"{number_of(len(CHECKPOINTS), 'card')} written to {folder}")
    elif arguments:
        print(provenance_card(published(arguments[0])), end="")
    else:
        rows = [(c.name, f"{c.accuracies[0].top1:.2f} %", c.file) for c in CHECKPOINTS]
        print_table(("name", "top-1", "file"), rows)
        print()
        for alias, name in ALIASES.items():
            print(f"{alias} is {name}. `polynet weights NAME` shows a file's origin and measurements.")
