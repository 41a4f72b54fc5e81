"""The promises, checked: what a load was told, against what a consumer finds in Kafka."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from .client import RouteStatus
from .consumer import Record
from .load import Ack


Counters = dict[str, list[int]]  # of each key, in the order of its partition


def counters_by_key(records: Iterable[Record]) -> Counters:
    """What a load's records tell. A split group counts once, with its first part."""
    found: Counters = defaultdict(list)
    for record in records:
        if record.headers.get("ce_groupindex", b"0") == b"0":
            count_record(record, found)
    return found


def count_record(record: Record, found: Counters) -> None:
    id = record.headers.get("ce_groupid", record.headers["ce_id"]).decode()
    key, _, counter = id.rpartition("-")
    assert record.key == key.encode(), f"{id} has the key {record.key!r}"
    found[key].append(int(counter))


def check_exactly_once(acks: Iterable[Ack], records: Iterable[Record]) -> int:
    """Each acknowledged event is there once and in order; one that was under way, at most once. How many are there.

    `records` are all that the load's topics hold, read with read_committed.
    """
    return check_counters(acks, counters_by_key(records))


def check_counters(acks: Iterable[Ack], found: Counters) -> int:
    """The same, of what was found already."""
    told: dict[str, int] = defaultdict(int)
    in_doubt: set[str] = set()
    for ack in acks:
        if ack.route:
            assert ack.counter == told[ack.key] + 1, f"the ledger skips to {ack.id}"
            told[ack.key] = ack.counter
        else:
            in_doubt.add(ack.key)
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
    given: dict[tuple[str, str], set[int]] = defaultdict(set)
    last: dict[str, int] = defaultdict(int)
    for ack in acks:
        if ack.route:
            numbers = given[ack.store, ack.route]
            assert ack.sequence not in numbers, f"{ack.route} {ack.sequence} is given to {ack.id}, and to another"
            numbers.add(ack.sequence)
            assert ack.sequence > last[ack.key], f"{ack.id} is {ack.sequence}, after {last[ack.key]}"
            last[ack.key] = ack.sequence


def check_ledger(routes: Iterable[RouteStatus], acks: Counter[str]) -> None:
    """GetStatus adds up, and has accepted exactly what was acknowledged: `acks` by route, of a load that has ended."""
    for route in routes:
        kept = {name: getattr(route, name) for name in ("published", "pending", "dead", "purged", "lost")}
        assert route.accepted == sum(kept.values()), f"{route.route}: accepted {route.accepted}, but {kept}"
        assert route.accepted == acks[route.route], f"{route.route}: accepted {route.accepted}, acknowledged {acks[route.route]}"


def _difference(last: int, have: list[int]) -> str:
    missing = sorted(set(range(1, last + 1)) - set(have))
    extra = sorted({each for each in have if each > last})
    twice = sorted(each for each, times in Counter(have).items() if times > 1)
    return f"acknowledged to {last}, {len(have)} found; lost {missing[:10]}, twice {twice[:10]}, unknown {extra[:10]}" + (
        "" if have == sorted(have) else ", out of order"
    )
