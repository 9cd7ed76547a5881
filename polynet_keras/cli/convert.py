"""`polynet convert`: a published weights file as one of this package, and how far apart both are."""

from pathlib import Path

from absl import flags

USAGE = "SOURCE TARGET"
SUFFIXES = (".weights.h5", ".keras")


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_bool("compare", True, "Compare with the publisher's implementation if installed.", flag_values=values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise ValueError(f"expected SOURCE (a file, or a name of `polynet weights`) and TARGET; got {len(arguments)}")
    source, target = arguments[0], Path(arguments[1])
    if not target.name.endswith(SUFFIXES):
        raise ValueError(f"TARGET {str(target)!r} must end in {' or '.join(SUFFIXES)}")
    if target.exists():
        raise ValueError(f"TARGET {str(target)!r} is there already; name a new file")
    if not target.parent.is_dir():
        raise ValueError(f"TARGET {str(target)!r} is in no folder that exists; make it first")

    from polynet_keras.evaluation.conversion import convert

    result = convert(source, target, values.compare)
    report = result.report
    found = f"{report.arrays:,} arrays, {report.parameters:,} values, {result.classes} classes"
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
