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
    """The model's result for an image.

    Attributes:
        size: height and width of the upright image, in pixels.
        plan: the crops that the model got.
        votes: the probabilities of each crop, float (crops, classes).
        pooled: the probabilities of the image, float (classes,).
    """

    size: tuple[int, int]
    plan: tuple[Crop, ...]
    votes: np.ndarray
    pooled: np.ndarray


class Classifier:
    """Decodes and prepares images in a few threads, and passes their views to a batcher."""

    def __init__(self, card: ExportCard, settings: ServingSettings, batcher: Batcher):
        self._preprocessing = for_service(card.preprocessing)
        self._max_pixels = settings.max_pixels
        self._batcher = batcher
        self._threads = ThreadPoolExecutor(settings.decode_threads, "decode")
        self._free = asyncio.Semaphore(settings.decode_threads)

    async def classify(self, encoded: bytes, name: str, crops: int) -> Classified:
        """Classifies an image. Its views already have places in the batcher.

        Raises:
            RefusalError: the image is invalid or over a limit.
            BatchError: the model failed, or its output is not probabilities.
        """
        loop = asyncio.get_running_loop()
        views, size, plan = await self._prepared(encoded, name, crops)
        tasks = [loop.create_task(self._batcher.submit(view)) for view in views]
        try:
            votes = np.stack(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:  # if one fails or is cancelled, the others leave the queue
                task.cancel()
            raise
        try:
            return Classified(size, plan, votes, pooled(votes))
        except ValueError as error:
            raise BatchError(f"the model's output is not probabilities: {error}", error) from None

    async def _prepared(
        self, encoded: bytes, name: str, crops: int
    ) -> tuple[np.ndarray, tuple[int, int], tuple[Crop, ...]]:
        # Nothing waits inside the executor: it would keep the bytes of clients that have left. A client that leaves
        # does not free a working thread.
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
    """Returns an image's probabilities from those of its crops, pooled as in `polynet evaluate`.

    Args:
        votes: float array (crops, classes) of probabilities.
    """
    # Pooling takes logits, and makes probabilities from them again.
    logits = np.log(np.maximum(votes.astype("float64"), np.finfo("float64").tiny))
    return POOLING(logits[np.newaxis])[0]


def answer(classified: Classified, class_names: tuple[str, ...], top: int) -> dict:
    """Returns the answer for an image: its best classes and, with more than one crop, each crop's votes."""
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
    """Returns the place of a crop in the upright original image, in its pixels."""
    top, left, bottom, right = crop.box
    down, across = height / crop.resized[0], width / crop.resized[1]
    edges = {"left": left * across, "top": top * down, "right": right * across, "bottom": bottom * down}
    return {name: round(value, 2) for name, value in edges.items()}
