"""No network in tests: every Python process that finds this file on its path reaches this machine alone.

Python imports `sitecustomize` when it starts; `conftest.py` and `.ci/apart` put this folder on the path, so that child
processes and kernels are held too. Programs of other languages are given a proxy that nobody serves.
"""

import ipaddress
import socket

getaddrinfo = socket.getaddrinfo


class NetworkRefused(OSError):
    """A test, or what it started, asked for the network."""


def here(host):
    """Whether a host, by name or number, is this machine; None and "" stand for it when a server binds."""
    name = host.decode() if isinstance(host, bytes) else host
    if not name or name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def demand(host):
    """Raise NetworkRefused for another machine."""
    if not here(host):
        raise NetworkRefused(f"tests have no network, but something asked for {host!r}")


def guarded(function):
    """The function with its address, the last argument, checked first; Unix sockets have a path for one."""

    def call(self, *arguments):
        if isinstance(arguments[-1], tuple):
            demand(arguments[-1][0])
        return function(self, *arguments)

    return call


def resolve(host, *arguments, **options):
    """Names of other machines are not looked up either, for the question itself would leave this one."""
    demand(host)
    return getaddrinfo(host, *arguments, **options)


socket.getaddrinfo = resolve
for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
