"""S3 on loopback for tests: an emulator (moto), a real one (OpenStack Swift's, where it is installed), and a way to
them that breaks."""

import contextlib
import importlib.util
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

#: What each answers to.
SERVERS = ("moto", "swift")


def missing(kind):
    """Why a server cannot be had; None if it can."""
    needed = {"moto": ("moto", "s3fs"), "swift": ("swift", "eventlet", "lxml", "xattr", "s3fs")}[kind]
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(lacking)}" if lacking else None


@contextlib.contextmanager
def server(kind, folder):
    """Storage options of a server with an empty bucket ``bucket``."""
    with _moto() if kind == "moto" else _swift(folder) as options:
        import fsspec

        files = fsspec.filesystem("s3", **options, skip_instance_cache=True)
        until = time.monotonic() + 20
        while True:
            try:
                files.call_s3("create_bucket", Bucket="bucket")
                break
            except Exception:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        yield options


def options_of(port, key="k", secret="s"):
    return {
        "key": key,
        "secret": secret,
        "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "us-east-1"},
        "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 5, "read_timeout": 5},
    }


@contextlib.contextmanager
def _moto():
    # In a process of its own: what it imports warns, and its threads would stay.
    program = textwrap.dedent("""
        import sys
        from moto.server import ThreadedMotoServer
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        print(server.get_host_and_port()[1], flush=True)
        sys.stdin.read()
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield options_of(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


def free_ports(number):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextlib.contextmanager
def _swift(folder):
    """OpenStack Swift with its S3 interface: proxy, account, container and object server, one copy of everything."""
    from swift.common.ring import RingBuilder

    etc, disk = Path(folder) / "etc", Path(folder) / "srv"
    etc.mkdir(parents=True)
    (disk / "sda").mkdir(parents=True)
    (etc / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_prefix = a\nswift_hash_path_suffix = b\n[storage-policy:0]\nname = one\n"
        "default = yes\n"
    )
    kinds = ("account", "container", "object", "proxy")
    ports = dict(zip(kinds, free_ports(4), strict=True))
    common = f"swift_dir = {etc}\nbind_ip = 127.0.0.1\nworkers = 0\n"
    for kind in kinds[:3]:
        ring = RingBuilder(4, 1, 0)
        ring.add_dev({"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": ports[kind], "device": "sda",
                      "weight": 1.0, "replication_ip": "127.0.0.1", "replication_port": ports[kind]})  # fmt: skip
        ring.rebalance()
        ring.get_ring().save(str(etc / f"{kind}.ring.gz"))
        (etc / f"{kind}.conf").write_text(
            f"[DEFAULT]\n{common}bind_port = {ports[kind]}\ndevices = {disk}\nmount_check = false\n"
            f"disable_fallocate = true\n[pipeline:main]\npipeline = {kind}-server\n[app:{kind}-server]\n"
            f"use = egg:swift#{kind}\n"
        )
    parts = ("catch_errors", "cache", "listing_formats", "s3api", "tempauth", "copy", "slo", "dlo")
    special = {
        "cache": f"memcache_servers = 127.0.0.1:{free_ports(1)[0]}\n",
        "tempauth": "user_test_tester = testing .admin\n",
        "s3api": "location = us-east-1\n",
    }
    used = {"cache": "memcache"}
    (etc / "proxy.conf").write_text(
        f"[DEFAULT]\n{common}bind_port = {ports['proxy']}\n[pipeline:main]\npipeline = {' '.join(parts)} proxy-server\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\nallow_account_management = true\naccount_autocreate = true\n"
        + "".join(f"[filter:{p}]\nuse = egg:swift#{used.get(p, p)}\n{special.get(p, '')}" for p in parts)
    )
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            room = "obj" if kind == "object" else kind
            program = f"from swift.{room}.server import main; main()"
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-c", program, str(etc / f"{kind}.conf")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield options_of(ports["proxy"], "test:tester", "testing")


class Way:
    """A way to a server on which things go wrong: requests are answered with an error, connections are cut after so
    many bytes, or nothing comes back. ``requests`` counts those that went through or not."""

    def __init__(self, port):
        self._port = port
        self.fail_with, self.fails = b"", 0  # a status line, and how many requests get it
        self.cut_after, self.cuts = 0, 0  # bytes of a connection, and of how many
        self.silent = False
        self.requests = 0
        self._clients = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self):
        """Cut all connections: the next request comes by a new one."""
        clients, self._clients = self._clients, []
        for client in clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._open = False
        self._socket.close()
        self.drop()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def _accept(self):
        while self._open:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        self.requests += 1
        with client, contextlib.suppress(OSError):
            if self.silent:
                time.sleep(30)
                return
            if self.fails:
                self.fails -= 1
                client.settimeout(5)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(65536)
                length = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                left = (length[0] if length else 0) - len(head.partition(b"\r\n\r\n")[2])
                while left > 0 and (data := client.recv(65536)):
                    left -= len(data)
                client.sendall(b"HTTP/1.1 " + self.fail_with + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            budget = None
            if self.cuts:
                self.cuts -= 1
                budget = [self.cut_after]
            with socket.create_connection(("127.0.0.1", self._port)) as there:
                back = threading.Thread(target=self._pump, args=(there, client, None), daemon=True)
                back.start()
                self._pump(client, there, budget)
                if budget is None:
                    back.join(30)

    @staticmethod
    def _pump(source, target, budget):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if budget is not None:
                    budget[0] -= len(data)
                    if budget[0] < 0:
                        return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
