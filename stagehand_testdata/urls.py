"""What a host includes: `path("api/test/", include("stagehand_testdata.urls"))`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import transaction
from django.urls import URLPattern, path, re_path

from .api import openapi
from .api.operations import operation_viewset
from .api.signing_in import SignInView
from .api.views import (
    EntityTypeViewSet,
    EntityViewSet,
    OperationViewSet,
    RunViewSet,
    ScenarioViewSet,
    TokenViewSet,
)
from .operations.runs import ledger_alias
from .registry import load_registry

app_name = "stagehand_testdata"


def _routes() -> Iterator[tuple[str, type[Any], dict[str, Any], str]]:
    yield "verify-access", OperationViewSet, {"post": "verify_access"}, "verify-access"
    yield "cleanup", OperationViewSet, {"post": "cleanup"}, "cleanup"
    yield "batch", OperationViewSet, {"post": "batch"}, "batch"
    yield "shadow-copies", OperationViewSet, {"post": "shadow_copy"}, "shadow-copies"
    yield "tokens", TokenViewSet, {"post": "exchange"}, "tokens"
    yield "runs", RunViewSet, {"get": "list"}, "runs"
    run = {"get": "retrieve", "patch": "partial_update", "delete": "destroy"}
    yield "runs/<str:testId>", RunViewSet, run, "run"
    yield "runs/<str:testId>/entities", RunViewSet, {"get": "entities"}, "run-entities"
    yield "runs/<str:testId>/pass", RunViewSet, {"post": "issue_pass"}, "run-pass"
    yield "runs/<str:testId>/messages", RunViewSet, {"get": "messages"}, "run-messages"
    yield "runs/<str:testId>/sessions", RunViewSet, {"post": "open_session"}, "run-sessions"
    yield "runs/<str:testId>/receipt", RunViewSet, {"get": "receipt"}, "run-receipt"
    yield "entity-types", EntityTypeViewSet, {"get": "list"}, "entity-types"
    yield "entities/<str:type>", EntityViewSet, {"post": "create"}, "entities"
    yield "scenarios/<str:name>", ScenarioViewSet, {"post": "create"}, "scenarios"
    for operation in load_registry().operations:
        yield operation.name, operation_viewset(operation), {"post": "perform"}, operation.name


def _patterns() -> Iterator[URLPattern]:
    for route, viewset, actions, name in _routes():
        yield path(route, _view(viewset, actions), name=name)
        # A slash at the end is accepted; the schema shows the path without.
        yield path(f"{route}/", _view(viewset, actions, schema=None))
    # Whatever comes after it: no other view, whose refusals are logged, gets to see a link.
    yield re_path(r"^sign-in/(?P<token>[\s\S]+)$", _ours(SignInView.as_view()), name="sign-in")
    if openapi.is_installed():
        from .api.docs import DocsView, SchemaView

        for name, view in (("schema", SchemaView), ("docs", DocsView)):
            yield path(name, _ours(view.as_view()), name=name)
            yield path(f"{name}/", _ours(view.as_view()))
    unknown: dict[str, Any] = dict.fromkeys(("get", "post", "patch", "delete"), "unknown")
    yield re_path(r"^(?P<operation>[\s\S]*)$", _view(OperationViewSet, unknown, schema=None))


def _view(viewset: type[Any], actions: dict[str, Any], **options: Any) -> Any:
    return _ours(viewset.as_view(actions, **options))


def _ours(view: Any) -> Any:
    """The view, with its transactions its own also where the host has ATOMIC_REQUESTS.

    A purge commits batch by batch, a call that collides with another starts its transaction over, and the row
    that the audit has of a refusal stays.
    """
    return transaction.non_atomic_requests(using=ledger_alias())(view)


urlpatterns = list(_patterns())
