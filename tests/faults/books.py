"""Do the books hold? What must be true of the ledger and of the host's tables after every fault."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Max

from stagehand_testdata.models import TestEntity, TestRun

from .graphs import Place, Rows, all_rows, standing

End = dict[str, Any]


@dataclass(frozen=True)
class Books:
    """What was there before anything could fail.

    `unsettled` are the standing entries whose row has gone, or is another's: only a purge can find out.
    """

    real: Rows
    unsettled: frozenset[Place]

    @classmethod
    def open(cls, taken: frozenset[Place] = frozenset()) -> Books:
        """Take down the state as it is; at the places in `taken` real rows stand under the run's keys."""
        owned = frozenset(standing())
        rows = all_rows()
        ours = owned - taken
        real = {place: values for place, values in rows.items() if place not in ours}
        unsettled = frozenset(place for place in owned if place in real or place not in rows)
        return cls(real, unsettled)

    def faults(self) -> list[str]:
        """Everything that does not hold, in words."""
        rows, owned = all_rows(), standing()
        found = [
            f"a real row was {'changed' if place in rows else 'removed'}: {place}"
            for place, values in self.real.items()
            if rows.get(place) != values
        ]
        of_runs = set(rows) - set(self.real)
        settled = set(owned) - self.unsettled
        found += [f"a row without an entry: {place}" for place in sorted(of_runs - settled)]
        found += [f"an entry without its row: {place}" for place in sorted(settled - of_runs)]
        return found + miscounted_runs() + closed_runs_with_rows()


def miscounted_runs() -> list[str]:
    """Runs of which created is not removed + live + already gone + quarantined: ordinals leave no hole."""
    counted = TestRun.objects.annotate(made=Max("entities__ordinal"), entered=Count("entities"))
    return [
        f"{run}: {run.made} were made, {run.entered} are in the ledger"
        for run in counted
        if (run.made or 0) != run.entered
    ]


def closed_runs_with_rows() -> list[str]:
    """No purge comes back to a closed run."""
    return [
        f"{entry} stands in a closed run"
        for entry in TestEntity.objects.standing().filter(run__state=TestRun.State.CLOSED)
    ]


def end() -> End:
    """The state in which a purge leaves everything, to be compared with another's."""
    entries = TestEntity.objects.order_by("run__test_id", "ordinal")
    return {
        "rows": {place: tuple(map(_without_chance, values)) for place, values in all_rows().items()},
        "entries": {
            (test_id, ordinal): tuple(what)
            for test_id, ordinal, *what in entries.values_list(
                "run__test_id", "ordinal", "model", "key_text", "state", "reason", "blocked_by"
            )
        },
        "runs": dict(TestRun.objects.values_list("test_id", "state")),
    }


def _without_chance(value: Any) -> Any:
    """A password that lets nobody in is another one each time that Django makes it."""
    return re.sub(r"![0-9A-Za-z]{40}", "!", value) if isinstance(value, str) else value


def differences(reached: End, expected: End) -> list[str]:
    """Where two ends differ, in words."""
    found = []
    for what, wanted in expected.items():
        got = reached[what]
        found += [
            f"{what}: {key} is {got.get(key)}, undisturbed it is {wanted.get(key)}"
            for key in [*wanted, *(set(got) - set(wanted))]
            if got.get(key) != wanted.get(key)
        ]
    return found
