"""A run as a local web page that renews itself.

Guarantees: answers only GET for its two addresses, and only under the names of the address that it listens on
(conf/http_access.py), so that a foreign web page cannot read the run through the visitor's browser; a connection is
closed after REQUEST_S. Listens on the loopback address unless told otherwise; there is no login.
"""

import hashlib
import json
import socket
import socketserver
import sys
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Timer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jinja2 import Environment
from markupsafe import Markup

from conf.errors import QuorumError
from conf.http_access import Access
from conf.listening import AddressInUse, address_family, authority, cannot_listen, check_port
from operate.watch.live import LiveRun
from records.report.page import RunView, asset, environment, script_hash

__all__ = ["LOOPBACK", "AddressInUse", "WatchServer"]

LOOPBACK = "127.0.0.1"
REQUEST_S = 30.0
"""Longest life of a connection, which carries one request."""


def fragments(run: RunView, templates: Environment) -> dict[str, str]:
    """The parts of the page that change, as escaped HTML by the id of their place."""
    template = templates.get_template("watch_part.html.j2")
    return {part: template.render(run=run, part=part) for part in ("overview", "curves", "samples")}


class WatchServer(ThreadingHTTPServer):
    """Serves one run folder. Threads of the server take turns at reading it."""

    daemon_threads = True

    def __init__(self, path: Path, *, host: str = LOOPBACK, port: int = 0) -> None:
        """port 0: a free one. Raises RunFolderError, AddressInUse."""
        self.live = LiveRun(path)
        self.templates = environment("operate.watch")
        self.reading = Lock()
        settings = {"host_setting": "--host", "port_setting": "--port"}
        check_port(host, port, **settings)
        self.address_family = address_family(host)
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise cannot_listen(host, port, error, **settings) from error
        self.access = Access(host=host, port=self.server_port)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that leaves before its answer is whole is no error."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def server_bind(self) -> None:
        """As HTTPServer does, without asking the network for this machine's full name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{authority(self.server_name, self.server_port)}/"

    def page(self) -> str:
        with self.reading:
            run = self.live.refresh()
        script = asset("report.js") + Markup((Path(__file__).parent / "watch.js").read_text(encoding="utf-8"))
        return self.templates.get_template("watch.html.j2").render(
            run=run, style=asset("report.css"), script=script, script_hash=script_hash(script)
        )

    def state(self, seen: str) -> str | None:
        """The changing parts as JSON with a digest; None when the digest is the one the page has seen."""
        with self.reading:
            parts = fragments(self.live.refresh(), self.templates)
        digest = hashlib.sha256("".join(parts.values()).encode()).hexdigest()
        return None if digest == seen else json.dumps({"digest": digest, "parts": parts})


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    timeout = REQUEST_S
    """Of one read; `setup` limits all of them together."""

    def setup(self) -> None:
        super().setup()
        self._limit = Timer(REQUEST_S, self._give_up)
        self._limit.daemon = True
        self._limit.start()

    def finish(self) -> None:
        self._limit.cancel()
        super().finish()

    def _give_up(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        try:
            address = urlsplit(self.path)
        except ValueError:
            self._answer(HTTPStatus.BAD_REQUEST, "text/plain", "This is no address.")
            return
        # An address that names a host itself counts before the header.
        hosts = [address.netloc] if address.netloc else self.headers.get_all("Host", [])
        refusal = self.server.access.refusal(
            method=self.command, path=address.path, hosts=hosts, origins=self.headers.get_all("Origin", [])
        )
        if refusal is not None:
            self._answer(HTTPStatus(refusal.status), "text/plain", f"Not answered: {refusal.reason}.")
            return
        try:
            if address.path == "/":
                self._answer(HTTPStatus.OK, "text/html", self.server.page())
            elif address.path == "/state":
                (seen,) = parse_qs(address.query).get("seen", [""])[:1]
                state = self.server.state(seen)
                self._answer(HTTPStatus.OK if state else HTTPStatus.NO_CONTENT, "application/json", state or "")
            else:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", "There is nothing at this address.")
        except QuorumError as error:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", str(error))

    def _answer(self, status: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        with suppress(ConnectionError):  # whoever asked may have gone
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not worth a line each."""
