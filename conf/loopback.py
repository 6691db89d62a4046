"""Requests to this machine never go to a proxy: a proxy's own loopback is another machine's."""

import os
from urllib.parse import urlsplit

from conf import http_access

NO_PROXY = ("no_proxy", "NO_PROXY")


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine, by name or by address."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host.endswith(".localhost") or http_access.is_loopback(host)


def keep_from_proxy(url: str) -> None:
    """Has libraries that read the environment leave the proxy out for the URL's host, where that is this machine."""
    host = urlsplit(url).hostname
    if host is None or not is_loopback(url):
        return
    for name in NO_PROXY:
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), host)))
