"""The service's routes: an image, the model, health, metrics, and a page for people."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.exceptions import HTTPException

from twinflow_core.errors import InfrastructureError, TwinflowError
from twinflow_core.runtime.generator import Generator, Serving
from twinflow_core.service.batching import MicroBatcher, Overloaded
from twinflow_core.service.body_limit import BodyLimit
from twinflow_core.service.metrics import Metrics

PAGE = Path(__file__).with_name("page.html")
LONGEST_PROMPT = 2000
LARGEST_SEED = 2**53 - 1
VERSION_HEADER = "X-Twinflow-Version"
POLICY = (
    "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src 'self' blob: data:"
)


@dataclass(frozen=True)
class Limits:
    """How much the service takes on; see `MicroBatcher`."""

    batch: int = 16
    patience_seconds: float = 0.002
    admitted: int = 64


class ImageRequest(BaseModel):
    """What to draw. The same prompt, seed, steps, size and version give the same image, within 1/255."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: Annotated[str, Field(max_length=LONGEST_PROMPT)]
    seed: Annotated[int, Field(ge=0, le=LARGEST_SEED)] = 0
    steps: Annotated[
        int, Field(ge=1, description="Network evaluations; GET /model lists those there are.")
    ] = 1
    size: Annotated[
        str | None,
        Field(
            max_length=16, description="WIDTHxHEIGHT; GET /model lists those there are, the first if null."
        ),
    ] = None
    version: Annotated[
        Literal["champion", "previous"], Field(description="What the channel serves, or served before.")
    ] = "champion"

    @field_validator("prompt")
    @classmethod
    def _is_text(cls, prompt: str) -> str:
        prompt.encode("utf-8")
        return prompt


IMAGE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {}}, "description": f"The image; {VERSION_HEADER} names the version."},
    404: {"description": "There is no previous version."},
    408: {"description": "The body did not arrive in time."},
    413: {"description": "The body is too large."},
    422: {"description": "The request is wrong; which part, and what to do."},
    429: {"description": "Too many requests wait; Retry-After says when to come back."},
    503: {"description": "Drawing failed."},
}


def make_app(generator: Generator, limits: Limits) -> FastAPI:
    """The service around a generator, which it closes when it stops.

    Raises:
        TwinflowError: the package takes prompt embeddings alone, and people send texts.
    """
    generator.serving.package.require_text()
    batcher = MicroBatcher(limits.batch, limits.patience_seconds, limits.admitted)
    metrics = Metrics(generator, batcher)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        drawing = asyncio.create_task(batcher.run())
        yield
        drawing.cancel()
        with suppress(asyncio.CancelledError):
            await drawing
        generator.close()

    # The usual documentation pages load scripts from other hosts; /openapi.json has all they show.
    app = FastAPI(title="TwinFlow", summary=__doc__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit)
    _name_versions(app, generator, metrics)
    _explain_errors(app)
    _add_image(app, generator, batcher, metrics)
    _add_state(app, generator, metrics)
    return app


def _add_image(app: FastAPI, generator: Generator, batcher: MicroBatcher, metrics: Metrics) -> None:
    @app.post("/images", response_class=Response, responses=IMAGE_ANSWERS)
    async def image(wanted: ImageRequest) -> Response:
        """Draw one image."""
        began = time.perf_counter()
        with batcher.admit():
            serving = await _version(generator, wanted.version)
            serving.package.require_steps(wanted.steps)
            drawn = await batcher.draw(serving, wanted.prompt, wanted.seed, wanted.steps, wanted.size)
        seconds = time.perf_counter() - began
        metrics.images.labels(serving.release.version[:12]).inc()
        metrics.batch.observe(drawn.batch)
        metrics.seconds.observe(seconds)
        headers = {
            **_named(serving),
            "X-Twinflow-Milliseconds": f"{1000 * seconds:.1f}",
            "X-Twinflow-Batch": str(drawn.batch),
            "Cache-Control": "no-store",
        }
        return Response(drawn.png, media_type="image/png", headers=headers)


def _add_state(app: FastAPI, generator: Generator, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether it serves, and whether it can follow its channel. It serves on when it cannot."""
        fault = generator.fault
        return {
            "status": "serving",
            "version": generator.serving.release.version,
            "generation": generator.serving.release.generation,
            "channel": "followed" if fault is None else fault.as_dict(),
        }

    @app.get("/model")
    async def model() -> dict[str, Any]:
        """What is served: versions, steps, sizes, and what it runs on."""
        serving = generator.serving
        return {
            "version": serving.release.version,
            "generation": serving.release.generation,
            "previous": serving.release.previous,
            "steps": serving.package.manifest.nfe,
            "resolution": serving.package.manifest.resolution,
            "sizes": serving.package.manifest.size_names,
            "provider": serving.package.provider.name,
            "skipped": dict(serving.package.provider.skipped),
        }

    @app.get("/metrics", response_class=Response)
    async def prometheus() -> Response:
        """Counts and times, as Prometheus text."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> Response:
        headers = {"Content-Security-Policy": POLICY}
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers=headers)


def _name_versions(app: FastAPI, generator: Generator, metrics: Metrics) -> None:
    """Every answer names a version: that of its image, or the one that serves."""

    @app.middleware("http")
    async def named(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await answer(request)
        if VERSION_HEADER not in response.headers:
            response.headers.update(_named(generator.serving))
        if request.url.path == "/images":
            metrics.requests.labels(str(response.status_code)).inc()
        return response


def _explain_errors(app: FastAPI) -> None:
    @app.exception_handler(Overloaded)
    async def overloaded(_: Request, error: Overloaded) -> JSONResponse:
        what = {"what": "Too many requests wait.", "where": "", "fix": f"Try again in {error.retry_after} s."}
        return JSONResponse({"error": what}, 429, headers={"Retry-After": str(error.retry_after)})

    @app.exception_handler(TwinflowError)
    async def refused(_: Request, error: TwinflowError) -> JSONResponse:
        failed = isinstance(error, InfrastructureError)
        status = 503 if failed else 404 if isinstance(error, NoSuchVersion) else 422
        return JSONResponse({"error": error.as_dict()}, status)

    @app.exception_handler(HTTPException)
    async def wrong(request: Request, error: HTTPException) -> JSONResponse:
        what = {"what": f"{error.detail}.", "where": request.url.path, "fix": "See /openapi.json."}
        return JSONResponse({"error": what}, error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        what = {"what": f"The request is wrong: {fault['msg']}.", "where": where, "fix": "See /openapi.json."}
        return JSONResponse({"error": what}, 422)


class NoSuchVersion(TwinflowError):
    """The version asked for cannot be had."""


async def _version(generator: Generator, which: str) -> Serving:
    if which == "champion":
        return generator.serving
    try:
        # In a thread: the first time it is fetched and loaded, and others go on meanwhile.
        return await asyncio.get_running_loop().run_in_executor(None, generator.previous)
    except InfrastructureError:
        raise
    except TwinflowError as error:
        raise NoSuchVersion(error.what, where=error.where, fix=error.fix) from None


def _named(serving: Serving) -> dict[str, str]:
    named = {VERSION_HEADER: serving.release.version}
    return (
        {**named, "X-Twinflow-Generation": str(serving.release.generation)}
        if serving.release.generation
        else named
    )
