"""One exported model in service: loading, queue and readiness."""

import asyncio
import dataclasses
import io
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager

import numpy as np
from absl import logging
from fastapi.responses import JSONResponse
from PIL import Image

from polynet_keras.basics.names import number_of, size_text
from polynet_keras.data.crops import crop_plan
from polynet_keras.deployment.artifact import ExportCard
from polynet_keras.deployment.formats.format import Runner
from polynet_keras.deployment.serving.batching import Batcher, ended
from polynet_keras.deployment.serving.bodies import Buffer
from polynet_keras.deployment.serving.classification import Classified, Classifier, answer, pooled
from polynet_keras.deployment.serving.metrics import Metrics
from polynet_keras.deployment.serving.preparation import for_service, largest_of, prepare
from polynet_keras.deployment.serving.refusal import overloaded
from polynet_keras.deployment.serving.settings import ServingSettings

END_SECONDS = 10.0
"""How long the service waits at its end for the model's last batch, which no client waits for."""
HANGS = 2
"""A batch that takes this many times the limit of a request is considered hung."""


class Service:
    """Loads a model in the background and classifies with it; `app.create_app` uses it.

    Args:
        card: the exported model's card.
        load: returns the model; called once, in a thread.
        settings: the limits.
        on_ready: called when the model is loaded and warm.
        on_failure: called with the error if the model cannot be loaded.

    Raises:
        ValueError: the settings would refuse every image.
    """

    def __init__(
        self,
        card: ExportCard,
        load: Callable[[], Runner],
        settings: ServingSettings,
        on_ready: Callable[[], None] = lambda: None,
        on_failure: Callable[[Exception], None] = lambda error: None,
    ):
        _check_pixels(card, settings)
        self.card, self.settings = card, settings
        self.metrics = Metrics(name=card.name, format=card.format, precision=card.precision)
        self.buffer = Buffer(settings.max_buffered_bytes)
        self._load, self._on_ready, self._on_failure = load, on_ready, on_failure
        self._batcher: Batcher | None = None
        self._classifier: Classifier | None = None
        self._loading: asyncio.Task | None = None
        self._loaded: Future[Runner] | None = None
        self.metrics.watch(lambda: self._batcher.admitted if self._batcher else 0, lambda: self.buffer.held)

    def start(self) -> None:
        """Begins to load the model, inside an event loop."""
        loader = ThreadPoolExecutor(1, "load")
        self._loaded = loader.submit(self._loaded_and_warm)
        loader.shutdown(wait=False)  # its one task still runs to the end
        self._loading = asyncio.get_running_loop().create_task(self._make_ready(self._loaded))

    async def stop(self) -> None:
        """Ends the work. If `busy` is true afterwards, the model has not returned in time."""
        if self._loading and self._loaded:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
            await ended(self._loaded, END_SECONDS)
        if self._classifier and self._batcher:
            self._classifier.close()
            await self._batcher.close(END_SECONDS)

    @property
    def busy(self) -> bool:
        """Whether a thread uses the model: loads it, or computes a batch."""
        loading = self._loaded is not None and not self._loaded.done()
        return loading or (self._batcher is not None and self._batcher.busy)

    @property
    def expected_wait(self) -> float:
        return self._batcher.expected_wait if self._batcher else 1.0

    def check_alive(self) -> None:
        """Raises `RefusalError`, 503, if the service can no longer answer requests; a supervisor should restart it."""
        if self._batcher and not self._batcher.alive:
            raise overloaded("the service must be restarted: its queue is no longer served", 60)
        if self._batcher and self._batcher.busy_seconds > HANGS * self.settings.timeout:
            seconds = self._batcher.busy_seconds
            raise overloaded(f"the service must be restarted: a batch has been in the model for {seconds:.1f} s", 60)

    def check_ready(self) -> None:
        """Raises `RefusalError`, 503, until the model is loaded and warm."""
        if self._classifier is None:
            raise overloaded("the model is being loaded", 5)
        self.check_alive()

    def check_places(self, views: int) -> None:
        """Raises `QueueFullError` if the queue has no places for `views` views."""
        assert self._batcher
        self._batcher.check(views)

    def places(self, views: int) -> AbstractContextManager[None]:
        """Takes places in the queue; see `Batcher.admit`."""
        assert self._batcher
        return self._batcher.admit(views)

    async def classify(self, encoded: bytes, name: str, crops: int) -> Classified:
        """See `Classifier.classify`."""
        assert self._classifier
        return await self._classifier.classify(encoded, name, crops)

    async def _make_ready(self, loaded: Future[Runner]) -> None:
        settings = self.settings
        try:
            run = await asyncio.wrap_future(loaded)
        except Exception as error:
            self._on_failure(error)
            return
        self._batcher = Batcher(
            run, settings.max_batch_size, settings.max_delay_ms / 1000, settings.max_queue, self.metrics.count_batch
        )
        self._classifier = Classifier(self.card, settings, self._batcher)
        self.metrics.ready.set(1)
        self._on_ready()

    def _loaded_and_warm(self) -> Runner:
        run = self._load()
        try:
            self._check_answers(run)
        except Exception as error:
            raise ValueError(f"the model cannot answer a request: {error}; export it again") from error
        logging.info("%s: %s, %s, loaded", self.card.name, self.card.format, self.card.precision)
        return run

    def _check_answers(self, run: Runner) -> None:
        """Sends a grey image the whole way from the bytes of a file to those of an answer, which warms the model up."""
        card, protocol = self.card, self.card.preprocessing
        mode, side = {1: "L", 3: "RGB", 4: "RGBA"}[protocol.channels], protocol.image_size
        file = io.BytesIO()
        Image.new(mode, (side, side), (128,) * protocol.channels if protocol.channels > 1 else 128).save(file, "PNG")
        view, size, plan = prepare(file.getvalue(), "image", for_service(protocol), 1, self.settings.max_pixels)
        for batch in sorted({1, self.settings.max_batch_size}):
            rows = run(np.repeat(view, batch, axis=0))
            if rows.shape != (batch, len(card.class_names)):
                raise ValueError(
                    f"it returns {size_text(rows.shape)} numbers for {number_of(batch, 'image')}, but its card names "
                    f"{number_of(len(card.class_names), 'class', 'classes')}"
                )
            found = answer(Classified(size, plan, rows[:1], pooled(rows[:1])), card.class_names, len(card.class_names))
            JSONResponse([dataclasses.asdict(card), found])


def _check_pixels(card: ExportCard, settings: ServingSettings) -> None:
    for crops in (1, settings.max_crops):
        high, wide = largest_of(crop_plan(1, 1, card.preprocessing, crops))
        if high * wide > settings.max_pixels:
            raise ValueError(
                f"max_pixels={settings.max_pixels} must be at least {high * wide}: an image is resized to "
                f"{wide} x {high} px or more for its crops"
            )
