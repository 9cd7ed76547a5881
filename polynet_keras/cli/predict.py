"""`polynet predict`: classifies image files."""

import contextlib
import dataclasses
from collections import Counter
from typing import TYPE_CHECKING

from absl import flags

from polynet_keras.basics.checks import check_integer
from polynet_keras.basics.extras import require_extra
from polynet_keras.basics.names import number_of, shown
from polynet_keras.basics.stderr_filter import held_back
from polynet_keras.cli.choices import CROPS
from polynet_keras.cli.headings import Heading
from polynet_keras.cli.image_arguments import check_all_were_read, check_one_is_there, named_images
from polynet_keras.cli.model_flags import checked_model, define_card_flags, define_model_flag, define_weights_flags
from polynet_keras.cli.output_flags import check_new_file
from polynet_keras.cli.pooling_flags import define_pooling_flags, pooling_of
from polynet_keras.cli.table import print_table

if TYPE_CHECKING:
    from polynet_keras.evaluation.predicting import Prediction

USAGE = "[--model MODEL] [flags] IMAGE_OR_FOLDER..."
EXAMPLES = (
    "polynet predict photos --output classes.csv",
    "polynet predict --model fashion_mnist --top 1 shoe.png",
)

ALL, FIRST = 20, 10
"""Up to `ALL` images get a line each. Of more images, the first `FIRST` do, and a summary follows."""
LISTED = 20
"""The largest number of classes, and of unreadable files, in the summary."""


def define_flags(values: flags.FlagValues) -> None:
    define_model_flag(values, "use")
    define_card_flags(values)
    define_weights_flags(values)
    images = Heading(values, "Images")
    images.integer("crops", 1, "Crops of each image for the model: 1, 10 or 144.", choices=CROPS)
    images.integer("batch_size", 32, "Images, or crops of one image, in one forward pass.")
    define_pooling_flags(values)
    output = Heading(values, "Output")
    output.integer("top", 5, "Classes to give for each image, the most probable first.")
    output.string("output", None, "Table to write: file.csv, file.jsonl or file.parquet.")
    output.string("html", None, "Page to write: file.html with the pictures by class.")


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    check_integer("top", values.top, 1)
    check_integer("batch_size", values.batch_size, 1)

    from polynet_keras.data.crops import check_crops
    from polynet_keras.evaluation.prediction_table import SUFFIXES, check_table, prediction_table

    check_crops("crops", values.crops)
    pooling = pooling_of(values)
    require_extra("data", "PIL")
    if values.output is not None:
        check_table(check_new_file("output", values.output, SUFFIXES))
    if values.html is not None:
        check_new_file("html", values.html, (".html",))
    images = named_images(arguments)
    source, about = checked_model(values)
    check_one_is_there(images)

    from polynet_keras.evaluation.loading import load_source
    from polynet_keras.evaluation.metrics import TOP
    from polynet_keras.evaluation.predicting import predictions
    from polynet_keras.evaluation.prediction_page import write_prediction_page

    model = load_source(source, about)
    top = min(values.top, len(model.class_names))
    of_page: list[Prediction] = []
    most = max(top, TOP) if values.html is not None else top  # a page shows five classes
    print(f"model: {shown(model.name)}")
    found = _Found(len(images))
    with contextlib.ExitStack() as stack:
        stack.callback(found.show)  # also if the command is interrupted
        stack.push(lambda kind, *_: setattr(found, "table", None if kind else values.output))
        stack.enter_context(held_back())
        write = stack.enter_context(prediction_table(values.output, top)) if values.output is not None else None
        for prediction in predictions(model, images, most, values.crops, pooling, values.batch_size):
            if values.html is not None:
                of_page.append(prediction)
                prediction = dataclasses.replace(prediction, classes=prediction.classes[:top])
            found.add(prediction)
            if write is not None:
                write(prediction)
    if values.output is not None:
        print(f"table: {shown(values.output)}")
    if values.html is not None:
        write_prediction_page(values.html, model.name, of_page)
        print(f"page:  {shown(values.html)}")
    found.check()


class _Found:
    """The printed part of predictions, which may be too many for the screen and the memory.

    Args:
        images: the number of images to classify.
    """

    def __init__(self, images: int):
        self._images = images
        self.table: str | None = None  # the complete table, when it is written
        self._first: list[Prediction] = []
        self._unreadable: list[Prediction] = []
        self._classes: Counter[str] = Counter()
        self._done = 0

    def add(self, prediction: "Prediction") -> None:
        self._done += 1
        if len(self._first) < ALL:
            self._first.append(prediction)
        if prediction.error is None:
            self._classes[prediction.classes[0][0]] += 1
        elif len(self._unreadable) < LISTED:
            self._unreadable.append(prediction)

    def show(self) -> None:
        lines = self._first if self._images <= ALL else self._first[:FIRST]
        if self._images == 1:
            lines = [one for one in lines if one.error is None]  # `check` reports the same errors
        width = max((len(shown(one.image)) for one in lines), default=0)
        labels = min(16, max((len(shown(label)) for one in lines for label, _ in one.classes), default=0))
        for one in lines:
            classes = "   ".join(f"{shown(label):<{labels}} {probability:7.2%}" for label, probability in one.classes)
            print(f"{shown(one.image):<{width}}   {classes if one.error is None else one.error}")
        if self._images > ALL and self._done:
            where = "; --output writes all of them to a table" if self.table is None else f", in {shown(self.table)}"
            print(f"and {self._done - len(lines):,} more{where}\n")
            self._summarize()

    def _summarize(self) -> None:
        common = self._classes.most_common(LISTED)
        rows = [(shown(name), f"{count:,}", f"{count / self._done:.1%}") for name, count in common]
        others = self._classes.total() - sum(count for _, count in common)
        if others:
            name = number_of(len(self._classes) - len(common), "other class", "other classes")
            rows.append((name, f"{others:,}", f"{others / self._done:.1%}"))
        if self._failures:
            rows.append(("(cannot be read)", f"{self._failures:,}", f"{self._failures / self._done:.1%}"))
        print_table(("most probable class", "images", "share"), rows)
        for one in self._unreadable:
            print(f"{shown(one.image)}   {one.error}")

    def check(self) -> None:
        """Raises a `ValueError` if files could not be read."""
        check_all_were_read(self._images, [(one.image, one.error or "") for one in self._unreadable], self._failures)

    @property
    def _failures(self) -> int:
        return self._done - self._classes.total()
