"""`polynet results`: the table of evaluations, and its picture."""

from absl import flags

from polynet_keras.cli.headings import Heading
from polynet_keras.cli.table import print_table

USAGE = "[FILE=results.csv] [flags]"


def define_flags(values: flags.FlagValues) -> None:
    output = Heading(values, "Output")
    output.string("sort", None, "Column of the file to sort by, numbers from the largest.")
    output.string("plot", None, "Picture of error against cost to write, such as results.png.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise ValueError(f"unexpected argument {arguments[1]!r}; name one file of results")
    from polynet_keras.evaluation.plots import plot_results
    from polynet_keras.evaluation.results import COLUMNS, FIELDS, read

    if values.sort is not None and values.sort not in COLUMNS:
        raise ValueError(f"--sort={values.sort} must be one of {', '.join(COLUMNS)}")
    (file,) = arguments or ("results.csv",)
    results = read(file)
    if not results:
        raise ValueError(f"{file}: holds no result; `polynet evaluate --results FILE` adds one")
    if values.sort is not None:
        results.sort(key=lambda result: getattr(result, values.sort), reverse=FIELDS.get(values.sort) is not str)
    if values.plot is not None:
        plot_results(results, values.plot)
    header = ("model", "crops", "images", "top-1 %", "95 % interval", "top-5 %", "images/s", "parameters", "MACs")
    rows = [
        (
            result.model,
            str(result.crops),
            f"{result.images:,}" + (f" of {result.images + result.skipped:,}" if result.skipped else ""),
            f"{result.top1:.2f}",
            f"{result.top1_low:.2f} to {result.top1_high:.2f}",
            f"{result.top5:.2f}",
            f"{result.images_per_second:.2f}",
            f"{result.parameters:,}",
            f"{result.macs / 1e9:.3f} G" if result.macs else "not known",
            result.dataset,
        )
        for result in results
    ]
    print_table((*header, "dataset"), rows)
    if values.plot is not None:
        print(f"\nerror against cost: {values.plot}")
