"""The limits of the service and its clients, as a value."""

import dataclasses
from dataclasses import dataclass, field

from polynet_keras.data.image_headers import MAX_ENCODED_BYTES, MAX_PIXELS


def _limit(default, text: str):
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class ServingSettings:
    """Limits on bytes, pixels, time and queue; each field's `help` describes it.

    They bound the memory: `max_buffered_bytes` for bodies, `decode_threads` images of `max_pixels` while they are
    decoded or resized, and `max_queue` prepared views.

    Raises:
        ValueError: a value is out of range, or values contradict each other.

    Examples:
        >>> settings = ServingSettings(max_batch_size=16, timeout=10.0)
        >>> settings.max_queue
        128
    """

    max_bytes: int = _limit(10_000_000, "Largest size of an image file, in bytes.")
    max_pixels: int = _limit(25_000_000, "Largest number of pixels of an image, by its header and after resizing.")
    max_images: int = _limit(16, "Largest number of images in a request to the batch endpoint.")
    max_batch_bytes: int = _limit(32_000_000, "Largest size of a request to the batch endpoint, in bytes.")
    max_crops: int = _limit(10, "Largest number of crops of an image that a client may request: 1, 10 or 144.")
    max_buffered_bytes: int = _limit(256_000_000, "Largest size of all requests in memory, in bytes.")
    max_connections: int = _limit(256, "Largest number of connections.")
    max_queue: int = _limit(128, "Largest number of views (images times crops) that wait for the model or are in it.")
    max_batch_size: int = _limit(8, "Largest number of views in one batch of the model.")
    max_delay_ms: float = _limit(5.0, "Longest time, in milliseconds, that a view waits for others to share its batch.")
    timeout: float = _limit(30.0, "Seconds for an answer, after the request has arrived.")
    header_timeout: float = _limit(10.0, "Seconds for a client to send the head of a request.")
    body_timeout: float = _limit(30.0, "Seconds for a client to send the body of a request, and to take the answer.")
    decode_threads: int = _limit(2, "Threads that decode and resize images.")
    threads: int = _limit(0, "Threads of an inference; 0 leaves them to the runtime.")

    def __post_init__(self):
        from polynet_keras.data.crops import check_crops  # imports NumPy, which `polynet serve --help` does not need

        for one in dataclasses.fields(self):
            value, least = getattr(self, one.name), 0 if one.name in ("max_delay_ms", "threads") else 1
            if one.type in (float, "float") and one.name != "max_delay_ms":
                if not 0 < value < float("inf"):
                    raise ValueError(f"{one.name}={value!r} must be a number of seconds above 0")
            elif not least <= value < float("inf"):
                raise ValueError(f"{one.name}={value!r} must be at least {least}")
        check_crops("max_crops", self.max_crops)
        for name, most in (("max_pixels", MAX_PIXELS), ("max_bytes", MAX_ENCODED_BYTES)):
            if getattr(self, name) > most:
                raise ValueError(f"{name}={getattr(self, name)} must be at most {most}: larger ones are never decoded")
        for small, large in (
            ("max_crops", "max_queue"),
            ("max_images", "max_queue"),
            ("max_bytes", "max_buffered_bytes"),
            ("max_batch_bytes", "max_buffered_bytes"),
        ):
            if getattr(self, small) > getattr(self, large):
                raise ValueError(
                    f"{large}={getattr(self, large)} is less than {small}={getattr(self, small)}: such a request would "
                    "never be answered"
                )
