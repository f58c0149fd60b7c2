"""How is a program started, pinned to its CPU, metered and ended?

CPU time comes from the kernel's scheduler (first number of /proc/PID/task/TID/schedstat,
nanoseconds on a CPU in user and kernel mode), summed over all threads of the whole process tree.
"""

import ctypes
import os
import resource
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class CpuTime:
    """CPU time that a process tree has used since it started, in nanoseconds."""

    scheduled: int
    user: int
    system: int

    def since(self, earlier: "CpuTime") -> "CpuTime":
        """The time used since `earlier`.

        The scheduler's counters are exact but lose a thread that has ended; the accounted user
        and system time is coarse but loses nothing. They disagree only when a thread has ended,
        and then the larger one is right.
        """
        user, system = self.user - earlier.user, self.system - earlier.system
        scheduled = self.scheduled - earlier.scheduled
        accounted = user + system
        if accounted > scheduled * 1.02 + 4e9 / TICKS_PER_SECOND:
            scheduled = accounted
        # The kernel divides user from system by sampling, so only the proportion is kept.
        share = user / accounted if accounted else 0.0
        return CpuTime(scheduled, round(scheduled * share), round(scheduled * (1 - share)))


class Process:
    """A started program with all its descendants. Use it in a `with` statement."""

    def __init__(self, name: str, command: list[str], cpus: set[int], folder: Path, stdout=None):
        self.name = name
        self.errors = folder / f"{name}.err"
        with open(self.errors, "wb") as errors:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=errors if stdout is None else stdout,
                stderr=errors,
                preexec_fn=lambda: _before_exec(cpus),
            )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def pid(self) -> int:
        return self._child.pid

    def finish(self, seconds: float) -> tuple[int, str]:
        """Waits for the program's own end: its exit status and what it wrote."""
        output, _ = self._child.communicate(timeout=seconds)
        return self._child.returncode, (output or b"").decode()

    def read_lines(self, count: int) -> list[str]:
        """The next lines of a standard output that is a pipe; fewer when the program ends."""
        lines = (self._child.stdout.readline().decode().strip() for _ in range(count))
        return [line for line in lines if line]

    def is_running(self) -> bool:
        return self._child.poll() is None

    def last_words(self) -> str:
        """The last lines that the program wrote to its standard error."""
        text = self.errors.read_text(errors="replace").strip()
        return "\n".join(text.splitlines()[-10:])

    def cpu_time(self) -> CpuTime:
        scheduled = user = system = 0
        for pid in _tree(self.pid):
            try:
                # After the name, which may hold anything, come state, parent and so on.
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                user += int(fields[11])
                system += int(fields[12])
                for task in os.listdir(f"/proc/{pid}/task"):
                    schedstat = Path(f"/proc/{pid}/task/{task}/schedstat").read_text()
                    scheduled += int(schedstat.split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue
        tick = 1_000_000_000 // TICKS_PER_SECOND
        return CpuTime(scheduled, user * tick, system * tick)

    def resident_bytes(self) -> int:
        """Resident memory of the tree; pages that two of its processes share count twice."""
        total = 0
        for pid in _tree(self.pid):
            try:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
        return total * PAGE_SIZE

    def stop(self):
        """Ends the tree: politely, and by force after five seconds."""
        if self.is_running():
            members = _tree(self.pid)
            self._child.terminate()
            try:
                self._child.wait(5)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            # A child that outlived its parent is still ours while its start is unchanged.
            for pid, started in members.items():
                if pid != self.pid and _started(pid) == started:
                    os.kill(pid, signal.SIGKILL)
        if self._child.stdout:
            self._child.stdout.close()


def raise_file_limit():
    """Allows as many open files as the system lets this user have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def available_cpus() -> set[int]:
    """The CPUs that this process may use."""
    return os.sched_getaffinity(0)


def wait_until(condition, seconds: float, process: Process | None = None) -> bool:
    """Polls `condition` until it holds; false when the time is over or the process has ended."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline or (process and not process.is_running()):
            return False
        time.sleep(0.02)
    return True


def _before_exec(cpus: set[int]):
    os.sched_setaffinity(0, cpus)
    # Nothing that was started survives the benchmark, even when that is killed.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _tree(root: int) -> dict[int, str]:
    """The process and its descendants: pid -> start time."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(entry))
    members, waiting = {}, [root]
    while waiting:
        pid = waiting.pop()
        members[pid] = _started(pid)
        waiting += children.get(pid, [])
    return members


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""
