"""Several rows in one call: registered scenarios, the host's own operations, batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..conf import settings
from ..exceptions import InvalidInput, UnknownScenario
from ..registry import EntityType, Scenario, WireOperation, get_registry, resolve
from .entities import Creation, entries_by_type


def scenario_named(name: str) -> Scenario:
    """Raises UnknownScenario."""
    found = get_registry().scenarios.get(name)
    if found is None:
        known = ", ".join(each.name for each in get_registry().scenarios) or "none"
        raise UnknownScenario(f"No scenario is called '{name}'. Registered: {known}.")
    return found


def run_scenario(call: Creation, scenario: Scenario, data: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of `POST scenarios/{name}`: what the scenario says of itself, and every row it made."""
    said = resolve(scenario.make)(call, data) or {}
    return {
        "scenario": scenario.name,
        "testId": call.test_id,
        "isTest": True,
        "entities": entries_by_type(call),
        **said,
    }


def run_operation(call: Creation, operation: WireOperation, data: Mapping[str, Any]) -> Any:
    """The answer of a host's own operation."""
    return resolve(operation.make)(call, data)


def batch_order(wanted: Mapping[str, Any]) -> list[tuple[EntityType, int | None]]:
    """Which entity type a batch makes how many of, in the order of registration; None for `true`.

    Raises InvalidInput for a name that is none, a count that is none, or too many rows in all.
    """
    registry = get_registry()
    details: dict[str, list[str]] = {}
    asked: dict[str, int | None] = {}
    for name, count in wanted.items():
        entity_type = registry.type_named(name)
        if entity_type is None:
            details[name] = ["Unknown field: no entity type has this name."]
        elif entity_type.name in asked:
            details[name] = [f"Names the entity type '{entity_type.name}' a second time."]
        elif count is True:
            asked[entity_type.name] = None
        elif isinstance(count, bool) or not isinstance(count, int) or count < 0:
            details[name] = ["A count from 0 up, or true."]
        else:
            asked[entity_type.name] = count
    if sum(count or 0 for count in asked.values()) > settings.MAX_ROWS_PER_CALL:
        details["count"] = [f"More than {settings.MAX_ROWS_PER_CALL} rows in one call (MAX_ROWS_PER_CALL)."]
    if details:
        raise InvalidInput(f"The batch is not valid: {', '.join(details)}.", details=details)
    return [(each, asked[each.name]) for each in registry.entity_types if each.name in asked]


def run_batch(call: Creation, order: list[tuple[EntityType, int | None]]) -> dict[str, Any]:
    """The answer of `POST batch`: every row that was asked for, by entity type."""
    call.require_room(sum(1 if count is None else count for _, count in order))
    for entity_type, count in order:
        if entity_type.make_many is not None:
            resolve(entity_type.make_many)(call, count)
        else:
            for _ in range(1 if count is None else count):
                call.create(entity_type.name)
    return {"testId": call.test_id, "isTest": True, "entities": entries_by_type(call)}
