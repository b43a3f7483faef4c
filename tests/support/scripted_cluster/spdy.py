"""Just enough of SPDY/3.1 for kubectl's exec and port-forward, as a server.

kubectl opens streams by SYN_STREAM, with headers that are compressed by a dictionary of the protocol. They are not read
here: for exec the order of the streams says which is which (error, stdout, stderr), and for a port-forward only the
streams of data carry any (k8s.io/client-go tools/remotecommand/v4.go, tools/portforward/portforward.go).
"""

from __future__ import annotations

import socket
import struct
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN = 1
CONTROL = 0x80000000


class Connection:
    """The frames of one connection after its upgrade. `opened` and `came` are told of streams and their data."""

    def __init__(
        self,
        reader: Callable[[int], bytes],
        client: socket.socket,
        opened: Callable[[int], None],
        came: Callable[[int, bytes, bool], None],
    ) -> None:
        self._read = reader
        self._socket = client
        self._opened, self._came = opened, came
        self._lock = threading.Lock()
        self._headers = zlib.compressobj()

    def serve(self) -> None:
        """Until the client leaves."""
        with suppress(OSError, EOFError):
            while True:
                first, second = struct.unpack(">II", self._exactly(8))
                flags, payload = second >> 24, self._exactly(second & 0xFFFFFF)
                if not first & CONTROL:
                    self._came(first, payload, bool(flags & FIN))
                    continue
                kind = first & 0xFFFF
                if kind == SYN_STREAM:
                    stream = struct.unpack(">I", payload[:4])[0] & 0x7FFFFFFF
                    self._reply(stream)
                    self._opened(stream)
                elif kind == PING:
                    self._control(PING, payload)
                elif kind == GOAWAY:
                    return

    def send(self, stream: int, data: bytes, fin: bool = False) -> None:
        with suppress(OSError):
            self._send(struct.pack(">II", stream, (FIN if fin else 0) << 24 | len(data)) + data)

    def _reply(self, stream: int) -> None:
        with self._lock:
            block = self._headers.compress(struct.pack(">I", 0)) + self._headers.flush(zlib.Z_SYNC_FLUSH)
            payload = struct.pack(">I", stream) + block
            self._socket.sendall(struct.pack(">II", CONTROL | 3 << 16 | SYN_REPLY, len(payload)) + payload)

    def _control(self, kind: int, payload: bytes) -> None:
        self._send(struct.pack(">II", CONTROL | 3 << 16 | kind, len(payload)) + payload)

    def _send(self, frame: bytes) -> None:
        with self._lock:
            self._socket.sendall(frame)

    def _exactly(self, count: int) -> bytes:
        data = self._read(count)
        if len(data) < count:
            raise EOFError
        return data


def forward(reader: Callable[[int], bytes], client: socket.socket, port: int) -> None:
    """Connect each stream that carries data with a port of this machine."""
    ends: dict[int, socket.socket] = {}

    def copy_back(stream: int, end: socket.socket) -> None:
        with suppress(OSError):
            while data := end.recv(65_536):
                connection.send(stream, data)
        connection.send(stream, b"", fin=True)
        end.close()

    def came(stream: int, data: bytes, fin: bool) -> None:
        if data and stream not in ends:
            ends[stream] = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=copy_back, args=(stream, ends[stream]), daemon=True).start()
        with suppress(OSError):
            if data:
                ends[stream].sendall(data)
            if fin and stream in ends:
                ends[stream].shutdown(socket.SHUT_WR)

    connection = Connection(reader, client, lambda _stream: None, came)
    connection.serve()
    for end in ends.values():
        end.close()


def execute(
    reader: Callable[[int], bytes], client: socket.socket, run: Callable[[], tuple[bytes, bytes, bytes]]
) -> None:
    """Run once all three streams are there; `run` gives what goes to error, stdout and stderr."""
    streams: list[int] = []

    def opened(stream: int) -> None:
        streams.append(stream)
        if len(streams) == 3:
            threading.Thread(target=finish, daemon=True).start()

    def finish() -> None:
        error, *outputs = run()
        for stream, data in zip(streams[1:], outputs, strict=True):
            if data:
                connection.send(stream, data)
            connection.send(stream, b"", fin=True)
        connection.send(streams[0], error)
        connection.send(streams[0], b"", fin=True)

    connection = Connection(reader, client, opened, lambda *_: None)
    connection.serve()
