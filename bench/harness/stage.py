"""How do the backend and the proxies come up on free ports, ready and checked?"""

import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import load
from .configure import Plan
from .peers import Peer, built
from .processes import Process, wait_until
from .routes import CLUSTERS, Route

# Endpoints of each cluster.
ENDPOINTS = 3


class StartError(Exception):
    """A program that did not come up as it should."""


@dataclass
class Running:
    """A proxy under test. `process` is None for `direct`."""

    peer: Peer
    port: int
    process: Process | None
    log: Path


def start_backend(cpus: set[int], folder: Path) -> tuple[Process, dict[str, list[int]]]:
    """Starts the backend and returns it with the ports of each cluster."""
    listeners = [f"{name}=127.0.0.1:0" for name in CLUSTERS for _ in range(ENDPOINTS)]
    command = [str(built("bench-backend")), *listeners]
    process = Process("bench-backend", command, cpus, folder, subprocess.PIPE)
    ports: dict[str, list[int]] = {name: [] for name in CLUSTERS}
    for line in process.read_lines(len(listeners)):
        name, _, address = line.partition(" ")
        ports[name].append(int(address.rpartition(":")[2]))
    if any(len(of_cluster) != ENDPOINTS for of_cluster in ports.values()):
        process.stop()
        raise StartError(f"the backend did not start: {process.last_words()}")
    return process, ports


@contextmanager
def proxies(
    peers: list[Peer],
    routes: list[Route],
    backends: dict[str, list[int]],
    cpus: set[int],
    folder: Path,
    prefix: list[str] | None = None,
    patience: float = 20,
):
    """Starts the proxies; yields those that came up and answer every route rightly.

    `prefix` is put before each command, `patience` is the time in seconds that each may take.
    One that fails is told on standard error and left out.
    """
    with ExitStack() as stack:
        running = []
        for peer in peers:
            try:
                running.append(
                    _start(stack, peer, routes, backends, cpus, folder, prefix or [], patience)
                )
            except StartError as error:
                print(f"bench: {peer.name} left out: {error}", file=sys.stderr)
        yield running


def _start(stack, peer, routes, backends, cpus, folder, prefix, patience) -> Running:
    log = folder / f"{peer.name}-access.log"
    log.write_bytes(b"")
    if peer.binary is None:
        return Running(peer, backends["items"][0], None, log)
    port, admin_port, service_port = _free_ports(3)
    plan = Plan(
        routes, backends, port, admin_port, service_port, folder, log, single_process=bool(prefix)
    )
    command = prefix + peer.command(plan)
    if peer.logs_to_stdout:
        stdout = stack.enter_context(open(log, "ab"))
        process = Process(peer.name, command, cpus, folder, stdout)
    else:
        process = Process(peer.name, command, cpus, folder)
    stack.enter_context(process)
    if not wait_until(lambda: load.answers(port), patience, process):
        state = "gives no right answer" if process.is_running() else "ended"
        raise StartError(f"{state} after its start\n{process.last_words()}")
    try:
        wrong = load.wrong_answers(port, routes)
    except OSError as error:
        wrong = [str(error)]
    if wrong:
        raise StartError("it does not follow the route table\n  " + "\n  ".join(wrong))
    return Running(peer, port, process, log)


def _free_ports(count: int) -> list[int]:
    """Ports that are free now; all are held at once, so they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports
