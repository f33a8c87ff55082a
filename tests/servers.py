"""Servers on loopback that tests start: HTTP with byte ranges, and S3. Both write down the requests they get."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class RangeServer:
    """Serves a folder over HTTP/1.1; ``requests`` lists (method, path, first byte or None, bytes sent).

    With ``ranges=False`` it answers as simple servers do: always with the whole file.
    """

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        self.requests: list[tuple[str, str, int | None, int]] = []
        log, root = self.requests, Path(folder)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, body: bool) -> None:
                path = root / unquote(self.path.lstrip("/"))
                if not path.is_file():
                    log.append((self.command, self.path, None, 0))
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                data = path.read_bytes()
                match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")) if ranges else None
                start, stop, status = 0, len(data), 200
                if match:
                    first, last = match.groups()
                    start = int(first) if first else max(0, len(data) - int(last))
                    stop = min(int(last) + 1, len(data)) if first and last else len(data)
                    status = 206 if start < len(data) else 416
                if status == 416:
                    start = stop = 0
                self.send_response(status)
                if status == 206:
                    self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
                if status == 416:
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                if ranges:
                    self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Length", str(stop - start))
                self.end_headers()
                log.append((self.command, self.path, start if match else None, stop - start if body else 0))
                if body:
                    self.wfile.write(data[start:stop])

            def do_GET(self) -> None:
                self.answer(True)

            def do_HEAD(self) -> None:
                self.answer(False)

            def log_message(self, *args) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> RangeServer:
        return self

    def __exit__(self, *exc) -> None:
        self.close()


class HostileServer:
    """Answers every request with whatever ``answer(path, first, last, connection)`` sends, and then hangs up.

    ``first`` and ``last`` are those of the Range header; ``requests`` lists (path, first, last).
    """

    def __init__(self, answer) -> None:
        self.requests: list[tuple[str, int, int]] = []
        self._answer = answer
        self._ended = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._connections: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._ended:
                connection.close()
                return
            self._connections.add(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            request = b""
            while b"\r\n\r\n" not in request and (part := connection.recv(1 << 16)):
                request += part
            match = re.search(rb"(?i)range: bytes=(\d+)-(\d+)", request)
            first, last = (int(match[1]), int(match[2])) if match else (0, 0)
            path = request.split(b" ")[1].decode() if request else ""
            self.requests.append((path, first, last))
            if request:
                self._answer(path, first, last, connection)
        except OSError:  # the client has had enough
            pass
        finally:
            self._connections.discard(connection)
            connection.close()

    def close(self) -> None:
        self._ended = True
        with socket.create_connection(self._listener.getsockname()):  # accept() does not notice a close
            pass
        self._threads[0].join()
        self._listener.close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> HostileServer:
        return self

    def __exit__(self, *exc) -> None:
        self.close()


def head(status: str, **headers: object) -> bytes:
    """Start line and headers of an answer; ``Content_Range=…`` is Content-Range."""
    lines = [
        f"HTTP/1.1 {status}",
        "Connection: close",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()
