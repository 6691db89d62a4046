"""Whether a port can be listened on, found out before anything slow starts."""

import errno
import socket

from conf.errors import QuorumError


class AddressInUse(QuorumError):
    """The port is taken or not to be had, or the machine has no such address."""


def check_port(host: str, port: int, *, host_setting: str, port_setting: str) -> None:
    """Raises AddressInUse, which names the port and the setting to change."""
    if not 0 <= port <= 65535:
        raise AddressInUse(f"{port_setting} {port} is no port: choose one from 1 to 65535")
    try:
        family = address_family(host)
        place = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # A port whose last connections are still being closed is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        raise cannot_listen(host, port, error, host_setting=host_setting, port_setting=port_setting) from error


def cannot_listen(host: str, port: int, error: OSError, *, host_setting: str, port_setting: str) -> AddressInUse:
    """What the failed call means, and the setting to change."""
    address = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
    setting = f"{host_setting}, an address of this machine" if address else f"another {port_setting}"
    return AddressInUse(f"cannot listen on {authority(host, port)}: {error.strerror}; choose {setting}")


def authority(host: str, port: int) -> str:
    """HOST:PORT as a URL has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address_family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
