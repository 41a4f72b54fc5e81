"""The promises, checked: what a load was told, against what a consumer finds in Kafka."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from .consumer import Record
from .load import Ack


def counters_by_key(records: Iterable[Record]) -> dict[str, list[int]]:
    """Of a load's records: key -> counters in the order of the partition. A split group counts once."""
    found: dict[str, list[int]] = defaultdict(list)
    for record in records:
        if record.headers.get("ce_groupindex", b"0") == b"0":
            id = record.headers.get("ce_groupid", record.headers["ce_id"]).decode()
            key, _, counter = id.rpartition("-")
            assert record.key == key.encode(), f"{id} has the key {record.key!r}"
            found[key].append(int(counter))
    return found


def check_exactly_once(acks: Iterable[Ack], records: Iterable[Record]) -> int:
    """Each acknowledged event is there once and in order; one that was under way, at most once. How many are there.

    `records` are all that the load's topics hold, read with read_committed.
    """
    told: dict[str, int] = defaultdict(int)
    in_doubt: set[str] = set()
    for ack in acks:
        if ack.route:
            assert ack.counter == told[ack.key] + 1, f"the ledger skips to {ack.id}"
            told[ack.key] = ack.counter
        else:
            in_doubt.add(ack.key)
    found = counters_by_key(records)
    problems = []
    for key in sorted(told.keys() | found.keys()):
        have, last = found.get(key, []), told.get(key, 0)
        expected = list(range(1, last + 1))
        if have != expected and not (key in in_doubt and have == [*expected, last + 1]):
            problems.append(f"{key}: {_difference(last, have)}")
    assert not problems, f"{len(problems)} of {len(told)} keys are wrong:\n" + "\n".join(problems[:20])
    return sum(map(len, found.values()))


def check_sequences(acks: Iterable[Ack]) -> None:
    """The numbers of each route (and store) are given once each, to one event, rising for each key."""
    owner: dict[tuple[str, str, int], str] = {}
    last: dict[str, int] = defaultdict(int)
    for ack in acks:
        if ack.route:
            place = (ack.store, ack.route, ack.sequence)
            assert owner.setdefault(place, ack.id) == ack.id, f"{place} for {ack.id} and {owner[place]}"
            assert ack.sequence > last[ack.key], f"{ack.id} is {ack.sequence}, after {last[ack.key]}"
            last[ack.key] = ack.sequence


def _difference(last: int, have: list[int]) -> str:
    missing = sorted(set(range(1, last + 1)) - set(have))
    extra = sorted({each for each in have if each > last})
    twice = sorted({each for each in have if have.count(each) > 1})
    return f"acknowledged to {last}, {len(have)} found; lost {missing[:10]}, twice {twice[:10]}, unknown {extra[:10]}" + (
        "" if have == sorted(have) else ", out of order"
    )
