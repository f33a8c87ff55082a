"""Servers on loopback that tests start: HTTP with byte ranges, and S3. Both write down the requests they get."""

from __future__ import annotations

import re
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
