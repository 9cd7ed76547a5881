"""The routes of the service, and its error answers."""

import asyncio
import dataclasses
import time
from collections.abc import Coroutine
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polynet_keras.basics.names import number_of
from polynet_keras.data.crops import CROPS
from polynet_keras.deployment.artifact import ExportCard
from polynet_keras.deployment.serving.batching import BatchError, QueueFullError
from polynet_keras.deployment.serving.bodies import FORM, Upload, read_image, read_images
from polynet_keras.deployment.serving.classification import answer
from polynet_keras.deployment.serving.metrics import Metrics
from polynet_keras.deployment.serving.refusal import CLIENT_GONE, RefusalError, log_failure, overloaded
from polynet_keras.deployment.serving.service import Service

PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Crops = Annotated[int, Query(description="Crops of each image: 1, 10 or 144.")]
Top = Annotated[int, Query(ge=1, le=1000, description="Classes for each image.")]
PARAMETERS = ("crops", "top")

_BINARY = {"type": "string", "format": "binary"}
_FILES = {"schema": {"type": "object", "additionalProperties": _BINARY}}
ONE_IMAGE = {"requestBody": {"content": {"image/*": {"schema": _BINARY}, FORM: _FILES}, "required": True}}
IMAGES = {"requestBody": {"content": {FORM: _FILES}, "required": True}}

T = TypeVar("T")


def create_app(service: Service) -> FastAPI:
    """Makes the application of a service. It starts and stops the service."""

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        service.start()
        yield
        await service.stop()

    # Without FastAPI's own pages, which load scripts from other servers.
    app = FastAPI(title="polynet", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(_Counting, metrics=service.metrics)
    _add_error_handlers(app, service)
    _add_routes(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    settings, names = service.settings, service.card.class_names
    page = files("polynet_keras.deployment.serving").joinpath("page.html").read_bytes()
    card = dataclasses.asdict(service.card)

    @app.post("/v1/classify", openapi_extra=ONE_IMAGE)
    async def classify(request: Request, crops: Crops = 1, top: Top = 5) -> Response:
        """Returns the best classes of one image: the request's body, or the one file of a form."""
        _check_query(request)
        _check_crops(service, crops, 1)
        with service.buffer.body(settings.max_bytes + (4096 if _is_form(request) else 0)) as body:
            upload = await read_image(request, body, settings)
            found = await _answered(request, service, _one(upload, crops))
        return _json({"model": service.card.name, **answer(found, names, top)})

    @app.post("/v1/classify/batch", openapi_extra=IMAGES)
    async def classify_batch(request: Request, crops: Crops = 1, top: Top = 5) -> Response:
        """Returns the best classes of several images, the files of a form: a result or an error for each, in order."""
        _check_query(request)
        _check_crops(service, crops, 1)
        with service.buffer.body(settings.max_batch_bytes) as body:
            uploads = await read_images(request, body, settings)
            _check_crops(service, crops, len(uploads))
            results = await _answered(request, service, _many(uploads, crops, top))
        return _json({"model": service.card.name, "results": results})

    def _one(upload: Upload, crops: int):
        async def work():
            with service.places(crops):
                found = await service.classify(upload.encoded, upload.name, crops)
            service.metrics.images.inc()
            return found

        return work()

    def _many(uploads: list[Upload], crops: int, top: int):
        async def one(upload: Upload) -> dict[str, Any]:
            try:
                if len(upload.encoded) > settings.max_bytes:
                    size = len(upload.encoded)
                    raise RefusalError(
                        413, f"{upload.name}: {size:,} bytes are over the limit of {settings.max_bytes:,}"
                    )
                found = await service.classify(upload.encoded, upload.name, crops)
            except RefusalError as refused:
                service.metrics.rejected.labels("image").inc()
                return {"name": upload.name, "status": refused.status, "error": refused.reason}
            except BatchError as error:
                return {"name": upload.name, "status": 500, "error": str(error), "failure": error.failure}
            service.metrics.images.inc()
            return {"name": upload.name, **answer(found, names, top)}

        async def work():
            with service.places(len(uploads) * crops):
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(upload)) for upload in uploads]
            return [task.result() for task in tasks]

        return work()

    @app.get("/v1/model", response_model=ExportCard)
    async def model() -> Response:
        """Returns the card of the exported model: its name, classes and preprocessing."""
        return _json(card)

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether the process is alive, and can answer requests when it is ready."""
        service.check_alive()
        return _json({"status": "alive"})

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz")
    async def readyz() -> Response:
        """Whether the model is loaded and warm."""
        service.check_ready()
        return _json({"status": "ready"})

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def index() -> Response:
        headers = {"Content-Security-Policy": PAGE_POLICY, "Referrer-Policy": "no-referrer"}
        return Response(page, media_type="text/html; charset=utf-8", headers=headers)


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").strip().lower().startswith(FORM)


def _check_query(request: Request) -> None:
    """Refuses a misspelt parameter, which would otherwise be ignored."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in PARAMETERS:
            raise RefusalError(422, f"{name[:50]} is not a parameter of this path; known are {', '.join(PARAMETERS)}")
        if names.count(name) > 1:
            raise RefusalError(422, f"{name} is given {names.count(name)} times")


def _check_crops(service: Service, crops: int, images: int) -> None:
    """Refuses a request that cannot be answered, before a byte of its body is read."""
    settings = service.settings
    if crops not in CROPS:
        raise RefusalError(422, f"crops={crops} must be one of {', '.join(map(str, CROPS))}")
    if crops > settings.max_crops:
        raise RefusalError(422, f"crops={crops} is over the limit of {settings.max_crops}")
    if crops * images > settings.max_queue:
        what = f"{number_of(images, 'image')} with {number_of(crops, 'crop')}"
        raise RefusalError(422, f"{what} exceed the queue's limit of {settings.max_queue}")
    service.check_ready()
    service.check_places(crops * images)


async def _answered(request: Request, service: Service, work: Coroutine[Any, Any, T]) -> T:
    """Returns the result of `work`. Cancels it when the time is over or the client leaves."""
    seconds = service.settings.timeout
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((task, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect()
        raise overloaded(f"no answer within {seconds:g} s", service.expected_wait)
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _add_error_handlers(app: FastAPI, service: Service) -> None:
    rejected = service.metrics.rejected

    @app.exception_handler(RefusalError)
    async def refused(request: Request, error: RefusalError) -> Response:
        rejected.labels("overload" if error.status == 503 else "client").inc()
        return _json({"error": error.reason}, error.status, error.headers)

    @app.exception_handler(QueueFullError)
    async def full(request: Request, error: QueueFullError) -> Response:
        return await refused(request, overloaded(str(error), error.seconds))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        reason = str(error.detail)
        if error.status_code == 404:
            reason = "no such path; POST an image to /v1/classify"
        elif error.status_code == 405:
            reason = f"{request.method[:20]} is not allowed for this path"
        return await refused(request, RefusalError(error.status_code, reason, error.headers))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = first["loc"][-1]
        return await refused(request, RefusalError(422, f"{name}={str(first.get('input'))[:50]}: {first['msg']}"))

    @app.exception_handler(ClientDisconnect)
    async def disconnected(request: Request, error: ClientDisconnect) -> Response:
        rejected.labels("client gone").inc()
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(BatchError)
    async def failed(request: Request, error: BatchError) -> Response:
        return _json({"error": str(error), "failure": error.failure}, 500)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        failure = log_failure(f"{request.method[:20]!r} {request.url.path[:200]!r}", error)
        return _json({"error": "the service failed on this request", "failure": failure}, 500)


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(content, status, {"X-Content-Type-Options": "nosniff", **(headers or {})})


class _Counting:
    """Counts every answer, by path and status, with its seconds."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        started = False

        def count(status: int) -> None:
            self.metrics.count_request(scope["path"], status, time.perf_counter() - start)

        async def counted(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":  # before the client can see the answer and ask for the counts
                started = True
                count(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, counted)
        except Exception:
            if not started:
                count(500)  # an outer layer sends the answer: there Starlette calls the handler of `Exception`
            raise
