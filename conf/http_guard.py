"""The check of conf/http_access.py in front of an ASGI application, and limits on what a slow client may hold.

Guarantees: the application sees no request that `Access` refuses, and no body that is too large or has not arrived
within the limit: a body is read whole before the application is called. How long headers may take is the server's own
to limit.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from conf.http_access import Access, Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

BODY_TIMEOUT_S = 60.0
"""Longest time from the end of the headers to the end of the body."""


class BodyRefused(Exception):
    """The body is too large or too slow."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class Gone(Exception):
    """The client has left before its body was whole."""


class HttpGuard:
    """ASGI middleware."""

    def __init__(
        self,
        app: Application,
        *,
        access: Access,
        body_timeout_s: float = BODY_TIMEOUT_S,
        max_body_bytes: int | None = None,
    ) -> None:
        self._app = app
        self._access = access
        self._body_timeout_s = body_timeout_s
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await (_refuse(send, refusal) if kind == "http" else send({"type": "websocket.close", "code": 1008}))
            return
        if kind == "websocket":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._body(receive)
        except BodyRefused as error:
            await _refuse(send, error.refusal)
            return
        except Gone:
            return
        await self._app(scope, _given(body, receive), send)

    def _refusal(self, scope: MutableMapping[str, Any]) -> Refusal | None:
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])

        def every(name: bytes) -> list[bytes]:
            return [value for key, value in headers if key.lower() == name]

        return self._access.refusal(
            # A web socket carries answers to any page that may open it.
            method=scope.get("method", "POST"),
            path=scope["path"],
            hosts=[value.decode("latin-1") for value in every(b"host")],
            origins=[value.decode("latin-1") for value in every(b"origin")],
            authorizations=every(b"authorization"),
            scheme="https" if scope.get("scheme") in ("https", "wss") else "http",
        )

    async def _body(self, receive: Receive) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise Gone
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if self._max_body_bytes is not None and len(body) > self._max_body_bytes:
                        limit = f"{self._max_body_bytes / 2**20:g} MiB"
                        raise BodyRefused(Refusal(status=413, reason=f"the request is larger than {limit}"))
        except TimeoutError:
            reason = f"the request's body did not arrive within {self._body_timeout_s:g} s"
            raise BodyRefused(Refusal(status=408, reason=reason)) from None
        return bytes(body)


def _given(body: bytes, receive: Receive) -> Receive:
    """A receive that gives the whole body once, and then what the connection says."""
    waiting = [body]

    async def given() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return given


async def _refuse(send: Send, refusal: Refusal) -> None:
    body = json.dumps({"detail": refusal.reason}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        # What the client is still sending is not waited for.
        (b"connection", b"close"),
    ]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
