"""A figure: what we measure over its floor, by paired runs. The table of all, as text, JSON and plot."""

from __future__ import annotations

import html
import json
import random
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

Measure = Callable[[], float]


@dataclass
class Figure:
    """The sides take turns, in an order that chance decides, because the machine is shared; the ratio is the median of
    the pairs' own."""

    name: str
    unit: str
    goal: float
    less_is_better: bool = False
    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)

    def run(self, ours: Measure, floor: Measure, pairs: int) -> Figure:
        for _ in range(pairs):
            sides = [(self.ours, ours), (self.floor, floor)]
            random.shuffle(sides)
            for into, measure in sides:
                into.append(measure())
            print(f"  {self.name}: {self.ours[-1]:,.0f} over {self.floor[-1]:,.0f} {self.unit}", flush=True)
        return self

    def fixed(self, ours: float, floor: float) -> Figure:
        """A figure whose floor is a size or a limit, not a measurement."""
        self.ours, self.floor = [ours], [floor]
        return self

    @property
    def ratios(self) -> list[float]:
        return sorted(one / other for one, other in zip(self.ours, self.floor))

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def met(self) -> bool:
        return self.ratio <= self.goal if self.less_is_better else self.ratio >= self.goal

    def row(self) -> str:
        spread = f"{self.ratios[0]:.2f} to {self.ratios[-1]:.2f}"
        ours, floor = statistics.median(self.ours), statistics.median(self.floor)
        goal = f"{'<' if self.less_is_better else '>'} {self.goal:.2f}"
        mark = "met" if self.met else ""
        return f"{self.name:62} {ours:12,.1f} {floor:12,.1f} {self.unit:9} {self.ratio:6.2f} {spread:>13} {goal:>7} {mark}"


def show(figures: list[Figure]) -> None:
    print(f"\n{'figure':62} {'ours':>12} {'floor':>12} {'unit':9} {'ratio':>6} {'spread':>13} {'goal':>7}")
    for each in figures:
        print(each.row())


def write(figures: list[Figure], folder: Path) -> None:
    rows = [asdict(each) | {"ratio": each.ratio, "met": each.met} for each in figures]
    (folder / "bench.json").write_text(json.dumps(rows, indent=2) + "\n")
    (folder / "bench.svg").write_text(plot(figures))


def plot(figures: list[Figure]) -> str:
    """A bar for each ratio, relative to its goal, which is the line; the whisker is the spread. Right is better."""
    left, width, step = 430, 420, 26
    height = step * (len(figures) + 2)
    at_goal = left + width / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{at_goal}" y="16" text-anchor="middle">goal</text>',
    ]
    for number, each in enumerate(figures):
        y = step * (number + 1)

        def place(ratio: float, goal: float = each.goal, less: bool = each.less_is_better) -> float:
            share = goal / ratio if less else ratio / goal
            return left + width / 2 * min(share, 2)

        ends = sorted(place(ratio) for ratio in (each.ratios[0], each.ratios[-1]))
        color = "#3a7d44" if each.met else "#c0662b"
        parts += [
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{html.escape(each.name)}</text>',
            f'<rect x="{left}" y="{y + 4}" width="{place(each.ratio) - left:.1f}" height="14" fill="{color}"/>',
            f'<line x1="{ends[0]:.1f}" x2="{ends[1]:.1f}" y1="{y + 11}" y2="{y + 11}" stroke="black"/>',
            f'<text x="{left + width + 8}" y="{y + 15}">{each.ratio:.2f}</text>',
        ]
    parts.append(f'<line x1="{at_goal}" x2="{at_goal}" y1="22" y2="{height - 8}" stroke="black" stroke-dasharray="4 3"/></svg>')
    return "\n".join(parts) + "\n"
