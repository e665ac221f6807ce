"""A call to a server that somebody else has named: never into our own network, and over when its time is."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import queue
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping

__all__ = ["find_address", "post"]

Connect = Callable[[int], socket.socket]

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
SPECIAL = ipaddress.IPv4Network("192.0.0.0/24")  # of the IETF's own; clouds have had their secrets there
UNICAST = ipaddress.IPv6Network("2000::/3")  # all that is given out of IPv6


def post(url: str, body: bytes, headers: Mapping[str, str], private: bool, seconds: float) -> int:
    """Sends a POST and says the status of the answer, whose body is not read; redirections are not followed. The
    connection is cut after so many seconds, however slowly something comes. `private`: our own network may be called.
    Raises OSError, ValueError, HTTPException."""
    parts, begun = urllib.parse.urlsplit(url), time.monotonic()
    address = find_address(parts, private, seconds)
    left = max(0.001, seconds - (time.monotonic() - begun))  # of the time in which all of it must be over
    held: list[socket.socket] = []
    late = threading.Event()

    def connect(port: int) -> socket.socket:
        # to the address that was looked at, whatever the name means a moment later
        made = socket.create_connection((address, port), left)
        held.append(made.dup())  # TLS takes the first handle of the connection away before it greets
        if late.is_set():
            made.close()
            raise TimeoutError
        return made

    def cut() -> None:
        late.set()
        for each in held:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    connection = _Connection(parts, left, connect)
    timer = threading.Timer(left, cut)
    timer.start()
    try:
        path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        connection.request("POST", path, body, dict(headers))
        status = connection.getresponse().status
    except TimeoutError:
        late.set()
    except (OSError, http.client.HTTPException):
        if not late.is_set():
            raise
    finally:
        timer.cancel()
        timer.join()
        for each in (connection, *held):
            each.close()
    if late.is_set():  # a connection that is cut looks like an answer that ends
        raise TimeoutError(f"no answer within {seconds:g} s")
    return status


class _Connection(http.client.HTTPConnection):
    """One over a socket that `connect` makes for a port; TLS asks for a certificate of the address's name."""

    def __init__(self, parts: urllib.parse.SplitResult, seconds: float, connect: Connect) -> None:
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self.default_port = http.client.HTTPS_PORT if self._tls else http.client.HTTP_PORT
        super().__init__(parts.hostname or "", parts.port, timeout=seconds)
        self._make = connect

    def connect(self) -> None:
        self.sock = self._make(self.port)
        if self._tls:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)


def find_address(parts: urllib.parse.SplitResult, private: bool, seconds: float) -> str:
    """The IP address of an address's host. Raises OSError for a name that is not known, or not in so many seconds,
    ValueError for an address inside our own network, which nobody from outside may make us call."""
    addresses = _look_up(parts.hostname or "", parts.port or 443, seconds)
    for address in addresses:
        if not private and not _is_outside(ipaddress.ip_address(address.split("%")[0])):
            raise ValueError("it is inside a private network")
    return addresses[0]


def _look_up(host: str, port: int, seconds: float) -> list[str]:
    """The IP addresses of a name. The system's resolver cannot be told when to stop: where it is late, it ends by
    itself some time, in a thread of its own."""
    answer: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

    def look() -> None:
        try:
            answer.put([str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except OSError as error:
            answer.put(error)
        except UnicodeError:  # a label that is empty, or too long
            answer.put(OSError("this is no name of a host"))

    threading.Thread(target=look, name="resolver", daemon=True).start()
    try:
        found = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"the name {host[:80]} was not found within {seconds:.3g} s") from None
    if isinstance(found, OSError):
        raise found
    return found


def _is_outside(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it is one server of the public internet."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and address not in SPECIAL
    within = address.ipv4_mapped or address.sixtofour
    if address in NAT64:
        within = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return _is_outside(within) if within is not None else address in UNICAST and address.is_global
