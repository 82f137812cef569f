"""Request bodies are read whole before anything looks at them: never more than a bound, never for longer than one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 64 << 10
SLOWEST_BODY_SECONDS = 20.0


class BodyLimit:
    """Answers 413 to a body of more than `LARGEST_BODY` bytes, announced or not, and 408 to one that does not come."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body in hand, or refuse it."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(SLOWEST_BODY_SECONDS):
                body = await _read(scope, receive)
        except TimeoutError:
            what = f"The request's body did not arrive within {SLOWEST_BODY_SECONDS:g} seconds."
            await _refuse(send, 408, what, "Send it again.")
            return
        if body is None:
            what = f"The request's body is larger than {LARGEST_BODY} bytes."
            await _refuse(send, 413, what, "Send less.")
            return
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send)


async def _read(scope: Scope, receive: Receive) -> bytes | None:
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    if not announced.isdigit() or int(announced) > LARGEST_BODY:
        return None
    body = b""
    while True:
        message: dict[str, Any] = dict(await receive())
        if message["type"] == "http.disconnect":
            return b""
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            return None
        if not message.get("more_body", False):
            return body


async def _refuse(send: Send, status: int, what: str, fix: str) -> None:
    error = {"what": what, "where": "body", "fix": fix}
    content = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
