"""script/bench: what the server does over what this machine could do at best.

Each figure is the ratio to a floor of its own that is measured in the same run; the table goes to standard output, the
same as JSON and as a plot to build/bench.json and build/bench.svg. script/bench startup is another table: how the cost
grows with the backlog, see startup.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.paths import BUILD

from . import consuming, figures, ingest, publishing, startup
from .figures import Figure


def main() -> None:
    if sys.argv[1:2] == ["startup"]:
        return startup.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1, help="of the numbers of events")
    parser.add_argument("--only", nargs="+", metavar="FIGURE", help="some of: unary, all, one, some, streams, cpu, idle, drain, once, late, consume")
    given = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="ingest-bench-", dir=BUILD) as name:
        folder, pairs = Path(name), given.pairs
        count = lambda events: max(1000, int(events * given.scale))  # noqa: E731
        measures: dict[str, Callable[[], Figure | list[Figure]]] = {
            "unary": lambda: ingest.unary(folder, pairs, count(400_000)),
            "all": lambda: ingest.unary_all(folder, pairs, count(400_000)),
            "one": lambda: ingest.one_in_flight(folder, pairs),
            "some": lambda: ingest.some_in_flight(folder, pairs),
            "streams": lambda: ingest.streams(folder, pairs, count(1_500_000)),
            "cpu": lambda: ingest.cpu(folder, pairs, count(400_000)),
            "idle": lambda: ingest.idle(folder, pairs, count(300_000)),
            "drain": lambda: publishing.drain(folder, pairs, count(1_000_000)),
            "once": lambda: publishing.at_once(folder, pairs, count(2_000_000)),
            "late": lambda: publishing.one_at_a_time(folder),
            "consume": lambda: consuming.consume(folder, pairs, count(400_000)),
        }
        table: list[Figure] = []
        for each in given.only or measures:
            result = measures[each]()
            table += result if isinstance(result, list) else [result]
    figures.show(table)
    figures.write(table, BUILD)


if __name__ == "__main__":
    main()
