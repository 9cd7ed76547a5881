"""The service's metrics, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

PATHS = ("/", "/healthz", "/metrics", "/openapi.json", "/readyz", "/v1/classify", "/v1/classify/batch", "/v1/model")
"""The paths with their own label; all others share one, since clients may request any path."""
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one service, in their own registry.

    Args:
        model: facts about the served model, for the labels of `polynet_model_info`.
    """

    def __init__(self, **model: str):
        self.registry = CollectorRegistry()

        def make(kind, name, text, *labels, **options):
            return kind(f"polynet_{name}", text, labels, registry=self.registry, **options)

        self.requests = make(Counter, "requests", "Answered requests", "path", "code")
        self.latency = make(
            Histogram, "request_seconds", "From a request's head to its answer", "path", buckets=LATENCY_BUCKETS
        )
        self.images = make(Counter, "images", "Classified images")
        self.rejected = make(Counter, "rejected", "Requests and images that were refused", "reason")
        self.batch_size = make(Histogram, "batch_size", "Views in a batch of the model", buckets=BATCH_BUCKETS)
        self.model_seconds = make(Counter, "model_seconds", "Seconds in the model")
        self.queue = make(Gauge, "queue_length", "Views that were admitted and not answered yet")
        self.buffered = make(Gauge, "buffered_bytes", "Bytes of requests that are held")
        self.ready = make(Gauge, "ready", "Whether the model is loaded and warm")
        self.access_log_lost = make(Counter, "access_log_lost", "Lines of the access log that were not written")
        make(Info, "model", "The model that is served").info(model)

    def count_batch(self, size: int, seconds: float) -> None:
        self.batch_size.observe(size)
        self.model_seconds.inc(seconds)

    def count_request(self, path: str, code: int, seconds: float) -> None:
        path = path if path in PATHS else "other"
        self.requests.labels(path, str(code)).inc()
        self.latency.labels(path).observe(seconds)

    def watch(self, queue: Callable[[], int], buffered: Callable[[], int]) -> None:
        self.queue.set_function(queue)
        self.buffered.set_function(buffered)

    def text(self) -> bytes:
        return generate_latest(self.registry)
