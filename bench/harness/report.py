"""How do rounds become medians, ratios, tables and files?

The machine's speed drifts over minutes, so two proxies may be compared only within one round.
A ratio is therefore made in each round and then the median of the ratios is taken; the quotient
of two medians would compare one proxy's good minute with the other's bad one.
"""

import json
from pathlib import Path
from statistics import median

from .load import BODIES

REFERENCE = "envoy"
MIB = 1024 * 1024


def summarize(result: dict) -> dict:
    """Medians over the rounds, and ratios to Envoy made within each round."""
    rounds = result["rounds"]
    names = [name for name in result["versions"] if any(name in r for r in rounds)]
    summary: dict = {"bodies": {}, "open_loop": {}, "memory": {}}
    for body in result["method"]["bodies"]:
        summary["bodies"][body] = _closed_loop(rounds, names, body)
    for name in names:
        if samples := _samples(rounds, name, "open_loop"):
            summary["open_loop"][name] = {
                key: median(sample[key] for sample in samples)
                for key in ("p50", "p90", "p99", "p999", "requests_per_second", "late_sends")
            }
        if samples := _samples(rounds, name, "memory"):
            summary["memory"][name] = {
                key: median(sample[key] for sample in samples)
                for key in ("idle", "after_load", "with_idle_connections")
            }
    return summary


def _closed_loop(rounds: list[dict], names: list[str], body: str) -> dict:
    table = {}
    for name in names:
        samples = _samples(rounds, name, body)
        if not samples:
            continue
        keys = ["requests_per_second", "p50", "p90", "p99"]
        if "cpu_us" in samples[0]:
            keys += ["cpu_us", "user_us", "system_us", "busy", "foreign"]
        row = {key: median(sample[key] for sample in samples) for key in keys}
        if "cpu_us" in row:
            ratios = _ratios(rounds, name, REFERENCE, body)
            if ratios:
                row["ratio"] = median(ratios)
                row["ratio_lowest"], row["ratio_highest"] = min(ratios), max(ratios)
        table[name] = row
    return table


def _samples(rounds: list[dict], name: str, key: str) -> list[dict]:
    return [r[name][key] for r in rounds if name in r and key in r[name]]


def _ratios(rounds: list[dict], name: str, other: str, body: str) -> list[float]:
    """CPU time per request of one proxy in units of another's, one number for each round."""
    return [
        r[name][body]["cpu_us"] / r[other][body]["cpu_us"]
        for r in rounds
        if body in r.get(name, {}) and body in r.get(other, {})
    ]


def check_limits(result: dict) -> list[dict]:
    """Each limit with what was measured; `met` is None when it could not be measured."""
    rounds = result["rounds"]
    memory = result["summary"]["memory"].get("lateen")
    to_envoy = _ratios(rounds, "lateen", "envoy", "get-1k")
    to_nginx = _ratios(rounds, "lateen", "nginx", "get-1k")
    rows = [
        ("CPU per request, Lateen / Envoy", 0.35, median(to_envoy) if to_envoy else None, ""),
        ("CPU per request, Lateen / nginx", 1.0, median(to_nginx) if to_nginx else None, ""),
        ("resident memory after load", 20, memory and memory["after_load"] / MIB, " MB"),
    ]
    return [
        {
            "limit": title,
            "at_most": most,
            "measured": None if value is None else round(value, 3),
            "unit": unit,
            "met": None if value is None else value <= most,
        }
        for title, most, value, unit in rows
    ]


def render(result: dict) -> str:
    """The whole result as Markdown whose tables also read well in a terminal."""
    method, machine, versions = result["method"], result["machine"], result["versions"]
    proxies = ", ".join(f"{name} {v}" for name, v in versions.items() if name != "direct")
    parts = [
        "# What one request costs\n",
        f"{result['measured']}: {proxies}"
        + (f" (commit {result['commit']})" if result["commit"] else "")
        + f". {machine['cpus']} x {machine['cpu']}, {machine['kernel']}."
        f" {method['rounds']} rounds of {method['seconds']:g} s, {method['connections']}"
        " kept-alive connections, 20 routes, statistics and access log on, one worker on its"
        " own CPU. Medians; a ratio is made within each round.\n",
    ]
    for body, rows in result["summary"]["bodies"].items():
        parts.append(f"## {BODIES[body].title}\n")
        parts.append(_table(_closed_loop_rows(rows)))
    if result["summary"]["open_loop"]:
        parts.append(f"## Latency at {method['rate']:g} requests/s (open loop), GET 1 KiB\n")
        parts.append(_table(_open_loop_rows(result["summary"]["open_loop"])))
    if result["summary"]["memory"]:
        parts.append("## Resident memory in MB\n")
        parts.append(_table(_memory_rows(result["summary"]["memory"], method)))
    parts.append("## Limits\n")
    parts.append(_table(_limit_rows(result["limits"])))
    if result["notes"]:
        parts.append("## Notes\n")
        parts.append("".join(f"- {note}\n" for note in result["notes"]))
    return "\n".join(parts)


def save(folder: Path, name: str, result: dict, markdown: str) -> list[Path]:
    """Writes NAME.json and NAME.md, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, text in (("json", json.dumps(result, indent=1) + "\n"), ("md", markdown)):
        path = folder / f"{name}.{suffix}"
        staging = path.with_suffix(f".{suffix}.tmp")
        staging.write_text(text)
        staging.replace(path)
        written.append(path)
    return written


def _closed_loop_rows(rows: dict) -> list[list[str]]:
    table = [
        ["proxy", "CPU µs/request", "user + system", "ratio to Envoy", "requests/s", "CPU busy"]
        + ["p50 ms", "p90 ms", "p99 ms"]
    ]
    for name, row in rows.items():
        ratio = spread = "–"
        if "ratio" in row:
            spread = f"{row['ratio_lowest']:.2f}–{row['ratio_highest']:.2f}"
            ratio = f"{row['ratio']:.2f} ({spread})"
        costs = ["–"] * 4
        if "cpu_us" in row:
            parts = f"{row['user_us']:.1f} + {row['system_us']:.1f}"
            costs = [f"{row['cpu_us']:.1f}", parts, ratio, f"{row['busy']:.0%}"]
        throughput = f"{row['requests_per_second']:,.0f}"
        latencies = [f"{row[key] / 1000:.2f}" for key in ("p50", "p90", "p99")]
        table.append([name, *costs[:3], throughput, costs[3], *latencies])
    return table


def _open_loop_rows(rows: dict) -> list[list[str]]:
    table = [["proxy", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs", "requests/s", "sent late"]]
    for name, row in rows.items():
        latencies = [f"{row[key]:,.0f}" for key in ("p50", "p90", "p99", "p999")]
        rest = [f"{row['requests_per_second']:,.0f}", f"{row['late_sends']:.1%}"]
        table.append([name, *latencies, *rest])
    return table


def _memory_rows(rows: dict, method: dict) -> list[list[str]]:
    idle = f"with {method['idle_connections']:,} idle connections"
    table = [["proxy", "before load", "after load", idle]]
    for name, row in rows.items():
        keys = ("idle", "after_load", "with_idle_connections")
        table.append([name, *(f"{row[key] / MIB:.1f}" for key in keys)])
    return table


def _limit_rows(limits: list[dict]) -> list[list[str]]:
    verdict = {True: "met", False: "MISSED", None: "not measured"}
    table = [["limit", "at most", "measured", "verdict"]]
    for row in limits:
        measured = "–" if row["measured"] is None else f"{row['measured']:.4g}{row['unit']}"
        most = f"{row['at_most']:,g}{row['unit']}"
        table.append([row["limit"], most, measured, verdict[row["met"]]])
    return table


def _table(rows: list[list[str]]) -> str:
    """A Markdown table with padded cells; the first column leans left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]

    def line(cells: list[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]
        return "| " + " | ".join([first, *rest]) + " |\n"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return line(rows[0]) + line(rule) + "".join(line(row) for row in rows[1:])


def render_instructions(result: dict) -> str:
    """The result of an instruction count as Markdown."""
    rows = [["proxy", "version", "user instructions/request", "ratio to Envoy"]]
    reference = result["instructions"].get(REFERENCE)
    for name, count in result["instructions"].items():
        ratio = f"{count / reference:.2f}" if reference else "–"
        rows.append([name, result["versions"][name], f"{count:,.0f}", ratio])
    method = result["method"]
    commit = f" (commit {result['commit']})" if result["commit"] else ""
    text = (
        "# Instructions for one request\n\n"
        f"{result['measured']}{commit}: user-space instructions in the whole process, counted by"
        f" callgrind, {method['title']}, {method['connections']} connections. The count is the"
        f" difference between {2 * method['requests']} and {method['requests']} requests in"
        " steady state, so starting up and connecting drop out.\n\n"
    )
    text += _table(rows) + "\n## Limits\n\n" + _table(_limit_rows(result["limits"]))
    if result["notes"]:
        text += "\n## Notes\n\n" + "".join(f"- {note}\n" for note in result["notes"])
    return text
