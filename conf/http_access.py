"""Who may ask an HTTP listener of ours: the one check that all of them make.

Guarantees: a listener on the loopback address answers only under this machine's own names, so that a foreign web page
which points its name here (DNS rebinding) reads nothing through the visitor's browser; what a page of another site
sends in its own name is refused, whatever the method; where a token is set, nothing but the open paths is answered
without it. Does not encrypt, and does not tell the users of one machine apart.
"""

import hmac
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from conf.errors import ConfigError

_AUTHORITY = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\s\[\]:@/?#]+)(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<authority>.+)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_TOKEN = re.compile(r"[!-~]+")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`, a name or an address."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def names_listener(authority: str, *, host: str, port: int, scheme: str = "http") -> bool:
    """Whether NAME:PORT of a Host header or an origin means the listener on `host` and `port`.

    On the loopback address these are localhost and the addresses of the loopback network; on every address (0.0.0.0)
    addresses as such, which no web page can take over, and the machine's name; otherwise the address or name itself.
    """
    parts = _AUTHORITY.fullmatch(authority.strip())
    if parts is None or int(parts["port"] or _DEFAULT_PORTS[scheme]) != port:
        return False
    name = parts["name"].lower()
    given, own = _address(name), _address(host)
    if is_loopback(host):
        return name == "localhost" or (given is not None and given.is_loopback)
    if own is not None and own.is_unspecified:
        return given is not None or name == "localhost" or name in _machine_names()
    return name == host.lower() or (given is not None and given == own)


def usable_token(variable: str, environment: Mapping[str, str]) -> str | None:
    """The token that `variable` holds; None where it is absent or empty.

    Raises ConfigError for a value that no client could send in a header.
    """
    value = environment.get(variable, "")
    if not value:
        return None
    if not _TOKEN.fullmatch(value.strip()):
        raise ConfigError(f"{variable} holds no usable token: write one word of ASCII letters, digits and signs")
    return value.strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    status: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Access:
    """What a listener asks of a request."""

    host: str
    """The address or name that it listens on."""
    port: int
    tokens: tuple[str, ...] = ()
    """Bearer tokens, one of which is asked for; none: whoever reaches the listener may ask it."""
    open_paths: tuple[str, ...] = ()
    """Answered without a token."""
    check_origin: bool = True
    """Refuse what a page of another site sends. False: the service has rules of its own for that, and answers the
    question that a browser asks before (OPTIONS), which carries no token."""

    def refusal(
        self,
        *,
        method: str,
        path: str,
        hosts: Sequence[str],
        origins: Sequence[str] = (),
        authorizations: Sequence[bytes] = (),
        scheme: str = "http",
    ) -> Refusal | None:
        """Why the request is not answered; None: it may be. The lists hold every header of that name."""
        # Beyond the loopback address a token is what protects: the service may have any name there.
        if not self.tokens or is_loopback(self.host):
            if len(hosts) != 1 or not names_listener(hosts[0], host=self.host, port=self.port, scheme=scheme):
                return Refusal(status=403, reason="the Host header does not name this server's own address")
            # Reading too: a service may let every page read its answers, as vLLM does unless told otherwise.
            if self.check_origin and not all(self._is_own(origin, hosts[0]) for origin in origins):
                return Refusal(status=403, reason="pages of other sites may not use this server")
        free = path in self.open_paths or (method == "OPTIONS" and not self.check_origin)
        if self.tokens and not free and not self._knows(authorizations):
            return Refusal(status=401, reason="a bearer token is needed")
        return None

    def _is_own(self, origin: str, host: str) -> bool:
        parts = _ORIGIN.fullmatch(origin.strip())
        if parts is None:
            return False
        authority, scheme = parts["authority"], parts["scheme"].lower()
        # On every address (0.0.0.0) another machine's address is a name of the listener too, and no page of its own.
        same = is_loopback(self.host) or authority.lower() == host.strip().lower()
        return same and names_listener(authority, host=self.host, port=self.port, scheme=scheme)

    def _knows(self, authorizations: Sequence[bytes]) -> bool:
        if len(authorizations) != 1:
            return False
        scheme, _, given = authorizations[0].strip().partition(b" ")
        # Every token is compared, each in constant time.
        known = [hmac.compare_digest(given.strip(), token.encode()) for token in self.tokens]
        return scheme.lower() == b"bearer" and any(known)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _machine_names() -> tuple[str, ...]:
    name = socket.gethostname().lower()
    return name, name.partition(".")[0]
