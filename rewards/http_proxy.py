"""What Ray Serve's HTTP proxy does before it passes a request on: the checks of conf/http_guard.py, and a limit on how
long a client may take for its headers and on how long they are.

Guarantees: everything that the port answers is behind the checks, Ray's own pages (/-/routes) among them. Ray starts
the proxy in a process of its own and knows this module by the name in `variables`; the settings travel beside it.
"""

import asyncio
import os
from collections.abc import Mapping

import uvicorn.config
from starlette.middleware import Middleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from conf.http_access import Access, usable_token
from conf.http_guard import HttpGuard
from conf.schema.reward_http import RewardHttpConfig

HEALTH = "/healthz"
MAX_HEADER_BYTES = 2**17
"""A connection whose headers have not ended after so many bytes is closed."""
_CALLBACK, _SETTINGS = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "QUORUM_REWARD_HTTP"


def variables(config: RewardHttpConfig) -> dict[str, str]:
    """Environment of the Ray that the server starts. The token stays in its own variable."""
    return {_CALLBACK: "rewards.http_proxy.middlewares", _SETTINGS: config.model_dump_json()}


def access(config: RewardHttpConfig, environment: Mapping[str, str]) -> Access:
    """Raises ConfigError for a token that no client could send."""
    token = usable_token(config.token_variable, environment)
    return Access(host=config.host, port=config.port, tokens=(token,) if token else (), open_paths=(HEALTH,))


def middlewares() -> list[Middleware]:
    """Called by Ray in the proxy's process before it listens."""
    config = RewardHttpConfig.model_validate_json(os.environ[_SETTINGS])
    TimedProtocol.header_timeout_s = config.header_timeout_s
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{TimedProtocol.__name__}"
    guard = Middleware(
        HttpGuard,
        access=access(config, os.environ),
        body_timeout_s=config.body_timeout_s,
        max_body_bytes=config.max_request_mib * 2**20,
    )
    return [guard]


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which alone would wait for headers for ever and keep as many as come."""

    header_timeout_s = 20.0
    """Longest time from the opening of a connection, or a request's first byte, to the end of the headers."""
    _limit: asyncio.TimerHandle | None = None
    _waiting = 0
    """Bytes that arrived while the headers have not ended."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._limit is None:
            return
        self._waiting += len(data)
        if self._waiting > MAX_HEADER_BYTES:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin()

    def on_headers_complete(self) -> None:
        self._end()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        super().connection_lost(exc)

    def _begin(self) -> None:
        if self._limit is None:
            self._limit = self.loop.call_later(self.header_timeout_s, self.transport.close)

    def _end(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
            self._waiting = 0
