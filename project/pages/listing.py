"""What the public listing shows: builders narrowed by filters and put in an order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.db.models import F, Q, QuerySet, TextField
from django.db.models.functions import Cast, Lower

from stagehand_testdata.marketplace.models import Builder

ORDERINGS: Mapping[str, tuple[Any, ...]] = {
    "name": ("display_name", "pk"),
    "rate": (F("hourly_rate").asc(nulls_last=True), "display_name", "pk"),
    "-rate": (F("hourly_rate").desc(nulls_last=True), "display_name", "pk"),
    "newest": ("-created_at", "-pk"),
}


def builders(filters: Mapping[str, Any]) -> QuerySet[Builder]:
    """The listed builders that pass every one of the filters that is set."""
    found = Builder.objects.listed().alias(skills=Lower(Cast("top_skills", TextField())))
    lookups = {
        "hourly_rate__gte": filters.get("min_rate"),
        "hourly_rate__lte": filters.get("max_rate"),
        "validation_tier": filters.get("tier"),
        "availability": filters.get("availability"),
    }
    found = found.filter(**{lookup: value for lookup, value in lookups.items() if value not in (None, "")})
    if skill := filters.get("skill"):
        found = found.filter(_json_contains(json.dumps(skill), json.dumps(skill, ensure_ascii=False)))
    for word in (filters.get("q") or "").split():
        found = found.filter(_mentions(word))
    ordering = ORDERINGS.get(filters.get("sort") or "")
    return found.order_by(*ordering) if ordering else found


def _mentions(word: str) -> Q:
    inside_quotes = _json_contains(json.dumps(word)[1:-1], json.dumps(word, ensure_ascii=False)[1:-1])
    return (
        Q(display_name__icontains=word) | Q(headline__icontains=word) | Q(bio__icontains=word) | inside_quotes
    )


def _json_contains(escaped: str, plain: str) -> Q:
    """The lower-cased JSON text of the skills holds the text in one of the two ways to write it.

    SQLite has no `contains` for JSON, so the text is compared. SQLite and MariaDB keep letters beyond ASCII
    as they were escaped, PostgreSQL keeps the letters themselves.
    """
    return Q(skills__contains=escaped.lower()) | Q(skills__contains=plain.lower())
