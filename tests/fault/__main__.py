"""script/torture: see there for the usage."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import traceback

from . import stage


def main() -> int:
    known = stage.stages()
    parser = argparse.ArgumentParser(
        prog="script/torture",
        epilog="stages: " + "; ".join(f"{letter} {module.TITLE}" for letter, module in known.items()),
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="letters; all when none is given")
    parser.add_argument("--seed", type=int, help="to repeat a run; drawn and printed otherwise")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is the full run, 0 stands for each stage's short one")
    parser.add_argument("--mutant", help="run on code broken by tests/fault/mutations/MUTANT.patch: has to fail")
    parser.add_argument("--controls", action="store_true", help="run every mutant of the stages: each has to be caught")
    options = parser.parse_args()
    letters = [each.upper() for each in options.stages] or list(known)
    for letter in letters:
        if letter not in known:
            parser.error(f"no stage {letter}; there are {', '.join(known)}")
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    results, failed = [], 0
    for letter in letters:
        module = known[letter]
        scale = options.scale or module.SHORT
        print(f"==> stage {letter}, {module.TITLE}: seed {seed}, scale {scale:g}", file=sys.stderr, flush=True)
        try:
            if options.controls:
                for mutant in module.MUTANTS:
                    said = stage.control(letter, seed, mutant, options.scale if options.scale != 1 else None)
                    print(f"{letter} caught {mutant}: {said.splitlines()[0] if said else 'failed'}", flush=True)
            else:
                results.append(stage.run(letter, seed, scale, options.mutant))
                print(json.dumps(results[-1]), flush=True)
        except Exception:
            failed += 1
            traceback.print_exc()
    folder = stage.BUILD / "results"
    folder.mkdir(parents=True, exist_ok=True)
    if results:
        (folder / "torture.json").write_text(json.dumps(results, indent=1))
    return 1 if failed else 0


sys.exit(main())
