"""How a run that counts failures ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def verdict(counted: Mapping[str, int], evidence: Callable[[], str]) -> int:
    """Print each count, and `OK` where all are 0, or what there is to show for it; the exit status."""
    for name, count in counted.items():
        print(f"  {count:>6}  {name}")
    if any(counted.values()):
        print(evidence())
        return 1
    print("OK")
    return 0
