"""From images to their best classes, through the model's queue."""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from polynet_keras.data.crops import Crop
from polynet_keras.deployment.artifact import ExportCard
from polynet_keras.deployment.serving.batching import Batcher, BatchError
from polynet_keras.deployment.serving.preparation import for_service, prepare
from polynet_keras.deployment.serving.settings import ServingSettings
from polynet_keras.evaluation.pooling import Pooling

POOLING = Pooling()


@dataclass(frozen=True)
class Classified:
    """What the model says of an image.

    Attributes:
        size: height and width of the upright image, in pixels.
        plan: the crops that the model was shown.
        votes: of each crop, float (crops, classes) probabilities.
        pooled: of the image, float (classes,) probabilities.
    """

    size: tuple[int, int]
    plan: tuple[Crop, ...]
    votes: np.ndarray
    pooled: np.ndarray


class Classifier:
    """Decodes and prepares images in a few threads, and hands their views to a batcher."""

    def __init__(self, card: ExportCard, settings: ServingSettings, batcher: Batcher):
        self._preprocessing = for_service(card.preprocessing)
        self._max_pixels = settings.max_pixels
        self._batcher = batcher
        self._threads = ThreadPoolExecutor(settings.decode_threads, "decode")
        self._free = asyncio.Semaphore(settings.decode_threads)

    async def classify(self, encoded: bytes, name: str, crops: int) -> Classified:
        """Classifies an image, whose views have their places in the batcher.

        Raises:
            RefusalError: the image's mistakes.
            BatchError: the model failed, or gave what are no probabilities.
        """
        loop = asyncio.get_running_loop()
        views, size, plan = await self._prepared(encoded, name, crops)
        tasks = [loop.create_task(self._batcher.submit(view)) for view in views]
        try:
            votes = np.stack(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:  # one that fails or is cancelled takes the others out of the queue
                task.cancel()
            raise
        try:
            return Classified(size, plan, votes, pooled(votes))
        except ValueError as error:
            raise BatchError(f"the model's probabilities are none: {error}", error) from None

    async def _prepared(
        self, encoded: bytes, name: str, crops: int
    ) -> tuple[np.ndarray, tuple[int, int], tuple[Crop, ...]]:
        # Nothing waits inside the executor, which would keep the bytes of those who left. Who leaves a thread at work
        # does not make it free.
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        work = self._threads.submit(prepare, encoded, name, self._preprocessing, crops, self._max_pixels)

        def free(work: Future) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._free.release)

        work.add_done_callback(free)
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def pooled(votes: np.ndarray) -> np.ndarray:
    """An image's probabilities from those of its crops, as `polynet evaluate` pools them.

    Args:
        votes: float array (crops, classes) of probabilities.
    """
    # Pooling takes logits, of which it makes the probabilities again.
    logits = np.log(np.maximum(votes.astype("float64"), np.finfo("float64").tiny))
    return POOLING(logits[np.newaxis])[0]


def answer(classified: Classified, class_names: tuple[str, ...], top: int) -> dict:
    """What a client gets of an image: its best classes and, of more than one crop, who voted for what."""
    height, width = classified.size
    best = np.argsort(-classified.pooled, kind="stable")[:top]
    content: dict = {
        "image": {"width": width, "height": height},
        "top": [{"class": class_names[i], "probability": float(classified.pooled[i])} for i in best],
    }
    if len(classified.plan) > 1:
        content["crops"] = []
        for crop, vote in zip(classified.plan, classified.votes, strict=True):
            first = int(vote.argmax())
            content["crops"].append(
                {
                    "box": original_box(crop, height, width),
                    "mirrored": crop.mirrored,
                    "class": class_names[first],
                    "probability": float(vote[first]),
                    # For the image's own best classes, in their order.
                    "probabilities": [float(vote[i]) for i in best],
                }
            )
    return content


def original_box(crop: Crop, height: int, width: int) -> dict[str, float]:
    """Where a crop is in the upright original image, in its pixels."""
    top, left, bottom, right = crop.box
    down, across = height / crop.resized[0], width / crop.resized[1]
    edges = {"left": left * across, "top": top * down, "right": right * across, "bottom": bottom * down}
    return {name: round(value, 2) for name, value in edges.items()}
