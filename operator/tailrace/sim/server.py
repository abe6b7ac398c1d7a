"""The HTTP side: paths, errors in OpenAI's form, and the life of one request."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

import orjson
from aiohttp import HttpVersion11, web

from tailrace.sim.engine import Engine, TooLargeError
from tailrace.sim.faults import Faults
from tailrace.sim.job import Job, Sink
from tailrace.sim.metrics import CONTENT_TYPE, Exposition
from tailrace.sim.options import Options
from tailrace.sim.request_log import RequestLog
from tailrace.sim.service import ABORTED, CLIENT_GONE, FINISHED, Service
from tailrace.sim.shapes.base import Ask, BadRequestError, Fields, Json, Shape
from tailrace.sim.shapes.chat import Chat
from tailrace.sim.shapes.completions import Completions
from tailrace.sim.shapes.embeddings import Embeddings
from tailrace.sim.shapes.responses import Responses

SHAPES: tuple[Shape, ...] = (Chat(), Completions(), Responses(), Embeddings())
MAX_BODY_BYTES = 32 * 1024 * 1024
REQUEST_ID = "x-request-id"
ERROR_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    413: "RequestEntityTooLargeError",
    503: "ServiceUnavailableError",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiError(Exception):
    """An answer other than 200, in OpenAI's form."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param

    def response(self) -> web.Response:
        """Return the error as a response."""
        kind = ERROR_TYPES.get(self.status, "InternalServerError")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.status}
        return json_response({"error": error}, status=self.status)


def json_response(body: Json, status: int = 200) -> web.Response:
    """Return `body` as a JSON response."""
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


@web.middleware
async def errors_in_openai_form(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every refusal, the framework's own included, into an OpenAI error."""
    try:
        return await handler(request)
    except ApiError as error:
        return error.response()
    except BadRequestError as error:
        return ApiError(400, str(error), error.param).response()
    except web.HTTPException as error:
        return ApiError(error.status, f"{error.reason}: {request.method} {request.path}").response()


class ModelServer:
    """One simulated model server: its engine and the aiohttp application in front of it.

    Built inside a running event loop. `app` needs a runner with `handler_cancellation`, or clients that
    leave would keep their slots.
    """

    def __init__(self, options: Options, log: RequestLog | None = None) -> None:
        self.options = options
        self.log = log or RequestLog(None)
        self.service = Service(Engine(options.profile, options.seed), self.log, speed=options.speed)
        self.faults = Faults(self.service, speed=options.speed)
        self.stopping = False
        self._created = int(time.time())
        self._exposition = Exposition(options.models[0], options.adapters, options.old_metric_names)
        self._ready_at = asyncio.get_running_loop().time() + options.startup_seconds
        self.app = self._application()

    @property
    def ready(self) -> bool:
        """Return whether the model is loaded and the server is not stopping."""
        return not self.stopping and asyncio.get_running_loop().time() >= self._ready_at

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[errors_in_openai_form], client_max_size=MAX_BODY_BYTES)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        for shape in SHAPES:
            app.router.add_post(shape.path, self._handler(shape))
        if self.options.faults:
            app.router.add_get("/faults", self._show_faults)
            app.router.add_post("/faults", self._change_faults)
        return app

    # What surrounds inference

    async def _health(self, _request: web.Request) -> web.Response:
        await self.faults.until_moving()
        return web.Response(status=200 if self.ready else 503)

    async def _metrics(self, _request: web.Request) -> web.Response:
        text = self._exposition.render(self.service)
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _models(self, _request: web.Request) -> web.Response:
        self._require_ready()
        root = self.options.models[0]
        cards = [self._card(name, None) for name in self.options.models]
        cards += [self._card(name, root) for name in self.options.adapters]
        return json_response({"object": "list", "data": cards})

    def _card(self, name: str, parent: str | None) -> Json:
        longest = self.options.profile.kv_tokens
        card = {"id": name, "object": "model", "created": self._created, "owned_by": "tailrace"}
        return {**card, "root": parent or name, "parent": parent, "max_model_len": longest}

    async def _show_faults(self, _request: web.Request) -> web.Response:
        return json_response(self.faults.state())

    async def _change_faults(self, request: web.Request) -> web.Response:
        self.faults.apply(Fields.parse(await request.read()).as_mapping())
        return json_response(self.faults.state())

    # One inference request

    def _handler(self, shape: Shape) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            request_id = request.headers.get(REQUEST_ID) or uuid4().hex
            try:
                job = self._start(shape, await request.read(), request_id, request.transport)
            except (ApiError, BadRequestError, web.HTTPException) as error:
                status = getattr(error, "status", 400)
                self.log.write("refused", request_id=request_id, path=shape.path, status=status, message=str(error))
                raise
            return await self._answer(request, shape, job)

        return handle

    def _start(self, shape: Shape, body: bytes, request_id: str, transport: asyncio.Transport | None) -> Job:
        self._require_ready()
        ask = shape.read(Fields.parse(body))
        salt = self._adapter(ask)
        try:
            return self.service.start(shape, ask, request_id=request_id, salt=salt, transport=transport)
        except TooLargeError as error:
            raise ApiError(400, str(error)) from None

    def _require_ready(self) -> None:
        if not self.ready:
            raise ApiError(503, "the server is stopping" if self.stopping else "the model is loading; try again later")

    def _adapter(self, ask: Ask) -> str:
        if ask.model in self.options.adapters:
            return ask.model
        if ask.model not in self.options.models:
            raise ApiError(404, f"The model `{ask.model}` does not exist.", "model")
        return ""

    async def _answer(self, request: web.Request, shape: Shape, job: Job) -> web.StreamResponse:
        outcome = ABORTED
        try:
            job.stream = shape.stream(job.answer) if job.ask.stream else None
            response = await (self._whole(request, shape, job) if job.stream is None else self._stream(request, job))
            outcome = FINISHED
        except (asyncio.CancelledError, ConnectionError):
            outcome = CLIENT_GONE
            raise
        finally:
            self.service.end(job, outcome)
        return response

    async def _whole(self, request: web.Request, shape: Shape, job: Job) -> web.StreamResponse:
        await job.done
        response = json_response(shape.whole(job.answer))
        response.headers[REQUEST_ID] = job.request_id
        await response.prepare(request)
        await response.write_eof()
        job.tokens_sent = job.sequence.generated
        return response

    async def _stream(self, request: web.Request, job: Job) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers={**headers, REQUEST_ID: job.request_id})
        chunked = request.version >= HttpVersion11
        if chunked:
            response.enable_chunked_encoding()
        else:
            response.force_close()  # the end of the connection is the end of the body
        await response.prepare(request)
        job.open(_sink(request, chunked=chunked))
        await job.done
        await response.write_eof()
        return response


def _sink(request: web.Request, *, chunked: bool) -> Sink:
    if request.transport is None:
        raise ConnectionResetError("the client left before its answer began")
    return Sink(request.transport, chunked=chunked)
