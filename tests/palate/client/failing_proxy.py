"""A proxy that reaches its server at every second try only and says 502 at the others, HTTP/2 by hand.

As of nginx now and then, the page behind the 502 comes later than its headers: here never.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from palate.v1.reward_service_pb2 import ScoreResponse

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, ACK, END_HEADERS = 1, 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def header(name: str, value: str) -> bytes:
    """HPACK's literal without indexing, with a new name."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def refused(stream: int) -> bytes:
    headers = header(":status", "502") + header("content-type", "text/html")
    return frame(HEADERS, END_HEADERS, stream, headers)


def answered(stream: int) -> bytes:
    message = ScoreResponse(results=[{"scored": {"score": 1.0}}]).SerializeToString()
    headers = header(":status", "200") + header("content-type", "application/grpc")
    body = b"\0" + len(message).to_bytes(4, "big") + message
    trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, header("grpc-status", "0"))
    return frame(HEADERS, END_HEADERS, stream, headers) + frame(DATA, 0, stream, body) + trailers


def serve(connection: socket.socket, numbers: Iterator[int], always: bool) -> None:
    """One connection; `always` refuses every try."""
    with connection, connection.makefile("rb") as incoming:
        incoming.read(len(PREFACE))
        connection.sendall(frame(SETTINGS, 0, 0))
        while len(head := incoming.read(9)) == 9:
            payload = incoming.read(int.from_bytes(head[:3], "big"))
            kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
            if kind == SETTINGS and not flags & ACK:
                connection.sendall(frame(SETTINGS, ACK, 0))
            elif kind == PING and not flags & ACK:
                connection.sendall(frame(PING, ACK, 0, payload))
            elif kind == DATA and flags & END_STREAM:
                connection.sendall(answered(stream) if next(numbers) % 2 and not always else refused(stream))


@contextmanager
def failing_proxy(*, always: bool = False) -> Iterator[tuple[str, Iterator[int]]]:
    """Its address, and what counts the calls that have reached it."""
    numbers = count()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection, numbers, always), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}", numbers
        listening.shutdown(socket.SHUT_RDWR)
