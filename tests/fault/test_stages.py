"""Every stage of the torture at its short scale, and every mutant, which has to be caught."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fault import stage  # noqa: E402

STAGES = stage.stages()


@pytest.mark.parametrize("letter", STAGES)
def test_stage(letter: str) -> None:
    stage.run(letter, secrets.randbits(32), STAGES[letter].SHORT)


@pytest.mark.parametrize("mutant", [f"{letter}-{name}" for letter, it in STAGES.items() for name in it.MUTANTS])
def test_control(mutant: str) -> None:
    letter, _, name = mutant.partition("-")
    stage.control(letter, secrets.randbits(32), name)


def test_no_mutant_is_left_out() -> None:
    there = {patch.stem for patch in (Path(__file__).parent / "mutations").glob("*.patch")}
    assert there == {name for it in STAGES.values() for name in it.MUTANTS}
