"""`polynet results`: shows the table of evaluations, and plots it."""

from typing import TYPE_CHECKING

from absl import flags

from polynet_keras.basics.checks import check_choice
from polynet_keras.basics.names import number_of, shown
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.result_filters import result_filter
from polynet_keras.cli.table import markdown_table, print_table

if TYPE_CHECKING:
    from polynet_keras.evaluation.results import Result

USAGE = "[FILE=results.csv] [flags]"
EXAMPLES = (
    "polynet results",
    "polynet results --sort top1 --plot results.png",
)

FORMATS = ("table", "markdown")
HEADER = (
    *("model", "crops", "images", "top-1 %", "95 % interval", "top-5 %", "images/s", "parameters", "MACs"),
    "dataset",
)


def define_flags(values: flags.FlagValues) -> None:
    rows = Heading(values, "Rows")
    rows.repeated(
        "filter", "Condition for the rows, such as `top1>=80` or `dataset=photos`. Several conditions must all hold."
    )
    rows.string("sort", None, "Column to sort by; numbers from the largest.")
    output = Heading(values, "Output")
    output.string("format", "table", "`table` or `markdown`.", choices=FORMATS)
    output.string("plot", None, "Picture of error against cost to write, such as results.png.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise ValueError(f"unexpected argument {arguments[1]!r}; name one file of results")
    from polynet_keras.evaluation.plots import plot_results
    from polynet_keras.evaluation.results import COLUMNS, FIELDS, read

    check_choice("--format", values.format, FORMATS)
    columns = {name: FIELDS.get(name, float) for name in COLUMNS}
    if values.sort is not None and values.sort not in COLUMNS:
        raise ValueError(f"--sort={values.sort} must be one of {', '.join(COLUMNS)}")
    filters = [result_filter(text, columns) for text in values.filter]
    (file,) = arguments or ("results.csv",)
    results = read(file)
    if not results:
        raise ValueError(f"{file}: has no result; `polynet evaluate --results FILE` adds one")
    count = len(results)
    results = [result for result in results if all(holds(result) for holds in filters)]
    if not results:
        raise ValueError(f"{file}: none of {number_of(count, 'result')} matches --filter")
    if values.sort is not None:

        def key(result: "Result") -> tuple:
            value = getattr(result, values.sort)
            return value is not None, value  # a speed that was not measured comes last

        results.sort(key=key, reverse=columns[values.sort] is not str)
    if values.plot is not None:
        plot_results(results, values.plot)
    if values.format == "markdown":
        print("\n".join(markdown_table(HEADER, [_row(result) for result in results])))
    else:
        print_table(HEADER, [_row(result) for result in results])
    if values.plot is not None and values.format == "table":
        print(f"\nerror against cost: {shown(values.plot)}")


def _row(result: "Result") -> tuple[str, ...]:
    return (
        result.model,
        str(result.crops),
        f"{result.images:,}" + (f" of {result.images + result.skipped:,}" if result.skipped else ""),
        f"{result.top1:.2f}",
        f"{result.top1_low:.2f} to {result.top1_high:.2f}",
        f"{result.top5:.2f}",
        result.speed,
        f"{result.parameters:,}" if result.parameters else "not known",
        f"{result.macs / 1e9:.3f} G" if result.macs else "not known",
        result.dataset,
    )
