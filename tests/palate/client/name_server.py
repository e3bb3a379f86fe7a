"""A name server on loopback that says the same of every name, so that several replicas can share one."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class NameServer:
    """Answers every question for IPv4 addresses with `addresses`, which may change, and no other question."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))

    def target(self, port: int) -> str:
        """A name of this server's, with the port of the replicas."""
        host, own_port = self._socket.getsockname()
        return f"dns://{host}:{own_port}/reward.test:{port}"

    def serve(self) -> None:
        """Until an empty question comes."""
        while True:
            question, caller = self._socket.recvfrom(512)
            if not question:
                return
            self._socket.sendto(self._answer(question), caller)

    def _answer(self, question: bytes) -> bytes:
        name_end = question.index(b"\0", 12) + 1
        asked = question[12 : name_end + 4]
        addresses = self.addresses if asked[-4:-2] == b"\0\1" else []
        records = b"".join(b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address) for address in addresses)
        return question[:2] + b"\x81\x80\0\1" + len(addresses).to_bytes(2, "big") + bytes(4) + asked + records

    def stop(self) -> None:
        """Ends `serve`."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())

    def close(self) -> None:
        """Frees the port."""
        self._socket.close()


@contextmanager
def name_server(*addresses: str) -> Iterator[NameServer]:
    """A running one."""
    server = NameServer(*addresses)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
        server.close()
