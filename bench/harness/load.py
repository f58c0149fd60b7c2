"""What are the requests, who sends them, and what comes back?"""

import json
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .processes import Process
from .routes import HOST, Route

# What a browser behind an identity provider sends: enough fields that parsing them counts.
FIELDS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/605.1.15 bench/1",
    "Accept": "application/json, text/plain;q=0.8",
    "Accept-Encoding": "gzip, br",
    "Authorization": "Bearer " + "c2lnbmVkLXRva2Vu" * 7,
    "Cookie": "session=6f1c2b3a4d5e6f708192a3b4c5d6e7f8; theme=dark; seen=3",
    "traceparent": "00-1f2e3d4c5b6a79880706050403020100-a1b2c3d4e5f60718-01",
}


@dataclass(frozen=True)
class Body:
    """One kind of request: what is sent, how much comes back."""

    name: str
    title: str
    path: str
    post_bytes: int = 0


BODIES = {
    body.name: body
    for body in (
        Body("get-1k", "GET, response of 1 KiB", "/api/v1/items/1k"),
        Body("post-10k", "POST of 10 KiB, response of 64 bytes", "/api/v1/items/64", 10 * 1024),
        Body("get-100k", "GET, response of 100 KiB", "/api/v1/items/100k"),
    )
}


class LoadError(Exception):
    """A load run that did not come to a result."""


@dataclass(frozen=True)
class Client:
    """The programs that make load, and where they may run."""

    wrk: str
    latency: Path
    script: Path
    cpus: set[int]
    folder: Path

    def closed_loop(self, port: int, body: Body, connections: int, seconds: float) -> dict:
        """wrk: every connection sends its next request as soon as the last is answered."""
        # wrk takes whole seconds only.
        command = [self.wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        command += ["--timeout", "10s", "-s", str(self.script)]
        for name, value in {"Host": HOST, **FIELDS}.items():
            command += ["-H", f"{name}: {value}"]
        command += [f"http://127.0.0.1:{port}{body.path}", "--"]
        command += ["POST" if body.post_bytes else "GET", str(body.post_bytes)]
        for line in self._run("wrk", command, seconds + 30).splitlines():
            if line.startswith("RESULT "):
                result = json.loads(line.removeprefix("RESULT "))
                result["requests_per_second"] = result["completed"] / result["seconds"]
                return result
        raise LoadError("wrk gave no result")

    def open_loop(
        self, port: int, body: Body, connections: int, rate: float, seconds: float
    ) -> dict:
        """bench-latency: requests at a steady rate, timed from when each was due."""
        arguments = ["--rate", str(rate), "--seconds", str(seconds)]
        return self._latency(port, body, connections, arguments, seconds * 4 + 60)

    def exactly(self, port: int, body: Body, connections: int, requests: int) -> dict:
        """bench-latency: an exact number of requests over all connections, no more."""
        return self._latency(port, body, connections, ["--requests", str(requests)], 3600)

    def _latency(
        self, port: int, body: Body, connections: int, arguments: list[str], limit: float
    ) -> dict:
        command = [str(self.latency), "--address", f"127.0.0.1:{port}", "--host", HOST]
        command += ["--path", body.path, "--connections", str(connections), *arguments]
        if body.post_bytes:
            command += ["--post", str(body.post_bytes)]
        for name, value in FIELDS.items():
            command += ["--header", f"{name}: {value}"]
        return json.loads(self._run("bench-latency", command, limit))

    def _run(self, name: str, command: list[str], limit: float) -> str:
        with Process(name, command, self.cpus, self.folder, subprocess.PIPE) as process:
            try:
                status, output = process.finish(limit)
            except subprocess.TimeoutExpired as error:
                raise LoadError(f"{name} did not end within {limit:.0f} s") from error
            if status != 0:
                raise LoadError(f"{name} failed: {process.last_words()}")
            return output


@dataclass(frozen=True)
class Answer:
    """What one request got back."""

    status: int
    backend: str | None
    length: int


def ask(connection: socket.socket, path: str, host: str = HOST, fields: dict | None = None):
    """Sends one GET on an open connection and reads the whole answer."""
    text = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n"
    for name, value in {**FIELDS, **(fields or {})}.items():
        text += f"{name}: {value}\r\n"
    connection.sendall((text + "\r\n").encode())
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    answer = {}
    for line in lines:
        name, _, value = line.partition(":")
        answer[name.lower()] = value.strip()
    if answer.get("transfer-encoding", "").lower() == "chunked":
        while not body.endswith(b"0\r\n\r\n"):
            body += _receive(connection)
        length = sum(len(chunk) for chunk in body.split(b"\r\n")[1::2])
    else:
        length = int(answer.get("content-length", 0))
        while len(body) < length:
            body += _receive(connection)
    return Answer(int(status_line.split()[1]), answer.get("x-backend"), length)


def wrong_answers(port: int, routes: list[Route]) -> list[str]:
    """Sends one request for every route; says which of them went astray."""
    wrong = []
    for route in routes:
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            answer = ask(connection, route.sample, fields=dict([route.header or ("x-none", "-")]))
        if (answer.status, answer.backend) != (200, route.cluster):
            wrong.append(
                f"{route.name}: {route.sample} got {answer.status} from {answer.backend},"
                f" expected 200 from {route.cluster}"
            )
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        answer = ask(connection, "/api/v1/items/1k", host="elsewhere.example.com")
    if answer.status != 404:
        wrong.append(f"an unknown host got {answer.status}, expected 404")
    return wrong


def answers(port: int) -> bool:
    """Whether the measured request gets its right answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            answer = ask(connection, BODIES["get-1k"].path)
    except OSError:
        return False
    return answer == Answer(200, "items", 1024)


def idle_connections(port: int, number: int) -> list[socket.socket]:
    """Opens connections that have had one answer each and now keep silent."""
    connections: list[socket.socket] = []
    try:
        for _ in range(number):
            connections.append(socket.create_connection(("127.0.0.1", port), 10))
            ask(connections[-1], BODIES["get-1k"].path)
    except OSError as error:
        for connection in connections:
            connection.close()
        raise LoadError(f"idle connection {len(connections)}: {error}") from error
    return connections


def _receive(connection: socket.socket) -> bytes:
    received = connection.recv(65536)
    if not received:
        raise ConnectionError("the connection ended early")
    return received
