"""Conversion of a published file to one of this package's, with facts about it for the user."""

import os
from dataclasses import dataclass
from pathlib import Path

from polynet_keras.applications import PolyNet
from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.files import digest_of, written_whole
from polynet_keras.evaluation.parity import Parity
from polynet_keras.evaluation.parity import compare as compare_with_publisher
from polynet_keras.pretrained.conversion import DifferentNetworkError, LoadReport, classes_of, load_checkpoint
from polynet_keras.pretrained.formats import read_checkpoint
from polynet_keras.pretrained.open_file import opened_file
from polynet_keras.pretrained.registry import SQUARE_378, check_source, list_published, published
from polynet_keras.pretrained.store import opened_source
from polynet_keras.pretrained.stored_arrays import Format

LARGEST_DIFFERENCE = 1e-4
"""Largest difference of logits, relative to the largest logit, that float32 sums in another order can cause."""


@dataclass(frozen=True)
class Conversion:
    """The result of `convert`.

    Attributes:
        source: the file that was read.
        report: the arrays found in it; all of them were used, and they filled the whole network.
        classes: number of classes of its classifier.
        source_hash, target_hash: SHA-256 of both files.
        parity: the difference between the two implementations; `None` if it was not requested.
    """

    source: Path
    report: LoadReport
    classes: int
    source_hash: str
    target_hash: str
    parity: Parity | None


def convert(source: str | os.PathLike, output: str | os.PathLike, compare: bool = True) -> Conversion:
    """Writes a published checkpoint of G5 as a file of this package.

    Args:
        source: a published file, or the name of a published checkpoint.
        output: `.weights.h5` (the weights) or `.keras` (the whole model, with softmax); it appears only when complete.
        compare: whether to compare both implementations on a photograph.

    Raises:
        ValueError: the source is missing, damaged, of another network or this package's own; or its publisher's
            implementation gives other logits, and nothing is written.
        OSError: the source cannot be fetched, or the output cannot be written.

    Examples:
        >>> conversion = convert(released, folder / "polynet.weights.h5", compare=False)
        >>> conversion.classes, conversion.target_hash != conversion.source_hash
        (4, True)
    """
    check_source(source)
    named = os.fspath(source) in list_published()
    if compare:
        require_extra("data", "PIL", "sklearn")
    # One open file is verified, converted and compared, even if another file gets its name.
    with opened_source(published(os.fspath(source))) if named else opened_file(source) as file:
        path = file.path
        checkpoint = read_checkpoint(file)
        if checkpoint.format is Format.KERAS:
            raise ValueError(f"{os.fspath(path)!r} is already a file of this package; there is nothing to convert")
        classes = classes_of(checkpoint)
        if classes is None:
            raise ValueError(f"{os.fspath(path)!r} has no classifier; PolyNet(include_top=False, weights=...) loads it")
        model = PolyNet(weights=None, classes=classes, classifier_activation=None)
        try:
            report = load_checkpoint(model, checkpoint)
        except DifferentNetworkError as error:
            raise ValueError(f"{os.fspath(path)!r}: {error}") from None
        preprocessing = published(os.fspath(source)).preprocessing if named else SQUARE_378
        parity = compare_with_publisher(model, report.format, file, preprocessing) if compare else None
        source_hash = digest_of(file.whole)
    if parity and parity.logits is not None and not parity.logits <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"{os.fspath(path)!r}: the logits of a photograph differ by {parity.logits:.1e} of the largest from those "
            f"of {parity.reference}, more than {LARGEST_DIFFERENCE:g}; nothing was written"
        )
    target = Path(output)
    with written_whole(target) as partial:
        if target.name.endswith(".keras"):
            whole = PolyNet(weights=None, classes=classes)
            whole.set_weights(model.get_weights())
            whole.save(partial)
        else:
            model.save_weights(partial)
    with open(target, "rb") as written:
        target_hash = digest_of(written)
    return Conversion(path, report, classes, source_hash, target_hash, parity)
