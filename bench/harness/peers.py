"""Which proxies are there, where are their programs, and how is each one started?"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import configure
from .configure import Plan

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Peer:
    """A proxy that can be started. `binary` is None for `direct`, the way past all proxies."""

    name: str
    binary: str | None
    version: str

    def configuration(self, plan: Plan) -> Path:
        """Writes the proxy's configuration and returns its file."""
        write, suffix = {
            "lateen": (configure.lateen, "yaml"),
            "envoy": (configure.envoy, "json"),
            "nginx": (configure.nginx, "conf"),
            "haproxy": (configure.haproxy, "cfg"),
        }[self.name]
        path = plan.folder / f"{self.name}.{suffix}"
        path.write_text(write(plan))
        return path

    def command(self, plan: Plan) -> list[str]:
        """The command that runs the proxy in the foreground with one worker."""
        path = str(self.configuration(plan))
        arguments = {
            "lateen": ["run", "-f", path, "--workers", "1"]
            + ["--admin", f"127.0.0.1:{plan.admin_port}"],
            "envoy": ["-c", path, "--concurrency", "1", "--disable-hot-restart", "-l", "error"],
            "nginx": ["-p", str(plan.folder), "-c", path, "-e", str(plan.folder / "nginx.err")],
            "haproxy": ["-db", "-f", path],
        }[self.name]
        return [str(self.binary), *arguments]

    @property
    def logs_to_stdout(self) -> bool:
        """Whether standard output has to be the access log."""
        return self.name == "haproxy"


NAMES = ("lateen", "envoy", "nginx", "haproxy", "direct")
# Debian's package of each program that is not built or fetched here.
PACKAGES = {
    "nginx": "nginx",
    "haproxy": "haproxy",
    "wrk": "wrk",
    "valgrind": "valgrind",
    "callgrind_control": "valgrind",
}


def find(name: str) -> Peer | str:
    """The proxy, or the reason why it cannot be measured."""
    if name == "direct":
        return Peer(name, None, "no proxy")
    if name == "lateen":
        binary = built("lateen")
        if not binary.exists():
            return "target/release/lateen is missing; `make bench` builds it"
        return _peer(name, str(binary), ["--version"])
    if name == "envoy":
        script = ROOT / "scripts" / "install-envoy"
        installed = subprocess.run([script], stdout=subprocess.PIPE, text=True)
        if installed.returncode != 0:
            return "scripts/install-envoy could not install it"
        return _peer(name, installed.stdout.strip(), ["--version"])
    binary = program(name)
    if not binary:
        return f"not installed (Debian: apt-get install {PACKAGES[name]}, or use --install)"
    return _peer(name, binary, ["-v"])


def built(name: str) -> Path:
    """Where cargo puts a release program of this workspace."""
    return target_folder() / "release" / name


def target_folder() -> Path:
    """The build folder."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def program(name: str) -> str | None:
    """Path of an installed program; servers may be where only root's PATH leads."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def install(names: list[str]) -> None:
    """Installs the Debian packages of the programs that are missing; needs root."""
    packages = sorted({PACKAGES[name] for name in names if not program(name)})
    if packages:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
            check=True,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )


def _peer(name: str, binary: str, arguments: list[str]) -> Peer | str:
    try:
        told = subprocess.run(
            [binary, *arguments], capture_output=True, text=True, timeout=20, check=False
        )
    except OSError as error:
        return f"does not start: {error}"
    number = re.search(r"\d+\.\d+(\.\d+)?", told.stdout + told.stderr)
    return Peer(name, binary, number[0] if number else "unknown")
