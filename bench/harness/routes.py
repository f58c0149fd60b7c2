"""Which routes does every proxy get?"""

from dataclasses import dataclass
from pathlib import Path

HOST = "shop.example.com"
SECOND_HOST = "admin.example.com"
CLUSTERS = ("items", "other")


@dataclass(frozen=True)
class Route:
    """One row of routes.tsv."""

    name: str
    match: str  # exact, prefix or regex
    path: str
    header: tuple[str, str] | None
    cluster: str
    sample: str  # path of a request that must take this row


def parse(path: Path) -> list[Route]:
    """Reads the table; a wrong row raises ValueError with its line."""
    routes = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        try:
            match, matched_path, header, cluster, sample = line.split("\t")
            if match not in ("exact", "prefix", "regex"):
                raise ValueError(f"unknown match {match}")
            if cluster not in CLUSTERS:
                raise ValueError(f"unknown cluster {cluster}")
            pair = None
            if header != "-":
                field, value = header.split("=")
                pair = (field, value)
        except ValueError as error:
            raise ValueError(f"{path.name}:{number}: {error}") from error
        name = f"route-{len(routes) + 1}"
        routes.append(Route(name, match, matched_path, pair, cluster, sample))
    return routes
