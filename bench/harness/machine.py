"""What were the numbers measured on, and how quiet was it?"""

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .processes import TICKS_PER_SECOND


def describe() -> dict:
    """The facts about the machine that a reader needs, and none that identify it."""
    cpu = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    release = re.match(r"\d+\.\d+", platform.release())
    return {
        "cpu": cpu,
        "cpus": os.cpu_count(),
        "memory_gib": round(int(memory[1]) / 1024**2) if memory else None,
        "kernel": "Linux " + (release[0] if release else "?"),
        "load_average_before": os.getloadavg()[0],
    }


def commit() -> str | None:
    """The commit that was measured, with a plus sign when files differ from it."""
    folder = Path(__file__).resolve().parent
    told = subprocess.run(
        ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or None


@dataclass(frozen=True)
class Busy:
    """Time in nanoseconds that a CPU has spent on work, and that a hypervisor took from it."""

    work: int
    stolen: int

    @staticmethod
    def read(cpu: int) -> "Busy":
        for line in Path("/proc/stat").read_text().splitlines():
            name, *fields = line.split()
            if name == f"cpu{cpu}":
                user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
                tick = 1_000_000_000 // TICKS_PER_SECOND
                return Busy((user + nice + system + irq + softirq) * tick, steal * tick)
        return Busy(0, 0)
