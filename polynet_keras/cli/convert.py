"""`polynet convert`: converts a published weights file to this package's format, and compares both."""

from absl import flags

from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.names import number_of
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.output_flags import check_new_file, define_output_flag, output_of

USAGE = "SOURCE --output FILE [flags]"
EXAMPLES = ("polynet convert imagenet --output imagenet.weights.h5",)
SUFFIXES = (".weights.h5", ".keras")


def define_flags(values: flags.FlagValues) -> None:
    define_output_flag(values, f"File to write, which ends in {' or '.join(SUFFIXES)}.")
    comparison = Heading(values, "Comparison")
    comparison.switch("compare", True, "Compare with the publisher's implementation, if it is installed.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) != 1:
        raise ValueError(f"expected one SOURCE (a file, or a name of `polynet weights`); got {len(arguments)}")
    (source,) = arguments
    target = check_new_file("output", output_of(values, "the file to write"), SUFFIXES)

    from polynet_keras.pretrained.registry import check_source

    check_source(source)
    if values.compare:
        require_extra("data", "PIL", "sklearn")

    from polynet_keras.evaluation.converting import convert

    result = convert(source, target, values.compare)
    report = result.report
    found = f"{report.arrays:,} arrays, {report.parameters:,} values, {number_of(result.classes, 'class', 'classes')}"
    print(f"source:         {result.source}")
    print(f"found:          {report.format}'s names of layers, {found}; sha256 {result.source_hash}")
    print(f"used:           all of it, and it fills the network; classifier {report.head}")
    if parity := result.parity:
        print(f"preprocessing:  at most {parity.preprocessing:.2f} of 255 from Pillow's, on a photograph")
        if parity.logits is None:
            print(f"logits:         not compared: {report.format} is not installed")
        else:
            same = "the same class" if parity.same_class else "ANOTHER CLASS"
            print(f"logits:         {parity.logits:.1e} of the largest from {parity.reference}'s, {same}")
    print(f"written:        {target} ({target.stat().st_size:,} bytes), sha256 {result.target_hash}")
