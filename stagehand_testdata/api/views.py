"""Parse, call one operation, render."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import unquote_plus

from django.db import transaction
from django.db.models import Count, F, Q, QuerySet
from django.http import HttpResponse
from django.urls import get_script_prefix
from rest_framework.exceptions import ValidationError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.pagination import PageNumberPagination
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.viewsets import GenericViewSet, ViewSet

from ..access import idempotency, oidc, trail
from ..access.callers import Caller, act_for, one_request
from ..access.idempotency import Answer, Once
from ..access.trail import Act
from ..conf import settings
from ..exceptions import (
    BodyTooLarge,
    IdempotencyUnsupported,
    InvalidInput,
    InvalidPass,
    InvalidTestId,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    TestDataError,
    TestIdMismatch,
    TooOld,
    UnknownOperation,
)
from ..logs import keeping_out
from ..models import Message, TestEntity, TestRun
from ..operations import copies, entities, passes, runs, scenarios, shadow, sign_in, tokens
from ..operations.addresses import require_reserved
from ..operations.purge import purge
from ..registry import WireOperation, get_registry, resolve
from . import errors, openapi, serializers
from .authentication import admit_stranger, authenticate
from .entity_fields import describe, fields_serializer
from .parsers import StrictJSONParser
from .signing_in import link_to, storage_state

_LENGTH_DIGITS = 20
#: So much of a name that means nothing is said back.
_SHOWN = 100
_COUNT = re.compile(r"0*[1-9][0-9]{0,99}")
_BETWEEN_VALUES = re.compile("[&=]")
_HOUR_MINUTES = 60
_DAY_MINUTES = 24 * 60


def sent_texts(request: Any) -> Iterator[str]:
    """Whatever came with the request that is nobody's to read in the log."""
    for name in ("HTTP_AUTHORIZATION", idempotency.META, passes.META, "HTTP_X_TEST_ID"):
        sent = request.META.get(name, "")
        # A test ID that is one is no secret.
        if not runs.TEST_ID.fullmatch(sent):
            yield from (sent, *sent.split())
    yield from request.COOKIES.values()
    yield from _query_texts(request)
    waiting = [getattr(request, "_full_data", None)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value


def _query_texts(request: Any) -> Iterator[str]:
    try:
        for _, values in request.GET.lists():
            yield from values
    except Exception:  # noqa: BLE001 - of a query that cannot be read (TooManyFieldsSent), as it was sent
        sent = request.META.get("QUERY_STRING", "")
        yield sent
        for each in _BETWEEN_VALUES.split(sent):
            yield from (each, unquote_plus(each))


class NoNegotiation(BaseContentNegotiation):
    """Whatever a client says it accepts, it is answered in the view's one format."""

    def select_parser(self, request: Request, parsers: Any) -> BaseParser:
        kind = request.content_type.partition(";")[0].strip().lower()
        for parser in parsers:
            if parser.media_type == kind:
                found: BaseParser = parser
                return found
        raise InvalidInput("The request body must be sent as application/json.")

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return renderers[0], renderers[0].media_type


class Pages(PageNumberPagination):
    page_size = 50
    page_size_query_param = "pageSize"
    max_page_size = 500

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> Any:
        for name in (self.page_query_param, self.page_size_query_param):
            if not _COUNT.fullmatch(request.query_params.get(name, "1")):
                raise InvalidInput(f"{name} must be a whole number above 0.")
        return super().paginate_queryset(queryset, request, view)

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        parameters: list[dict[str, Any]] = super().get_schema_operation_parameters(view)
        return [{**each, "schema": {"type": "integer", "minimum": 1}} for each in parameters]

    def get_paginated_response_schema(self, schema: Any) -> dict[str, Any]:
        link = openapi.nullable({"type": "string", "format": "uri"})
        return {
            "type": "object",
            "required": ["count", "next", "previous", "results"],
            "properties": {"count": {"type": "integer"}, "next": link, "previous": link, "results": schema},
        }


class TestDataViewSet(ViewSet):
    """The frame of every request: gate, key, test id, body, in this order."""

    __test__ = False

    # The host's own defaults (sessions, forms, browsable pages) have no place here.
    authentication_classes = ()
    permission_classes = ()
    throttle_classes = ()
    parser_classes = (StrictJSONParser,)
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = NoNegotiation
    http_method_names = ["get", "post", "patch", "delete", "head"]
    schema = openapi.ViewSchema() if openapi.HAVE_SPECTACULAR else None

    #: Whether the request names its run in the X-Test-ID header.
    needs_test_id: ClassVar[bool] = False
    #: Actions that a closed gate does not stop, and that any key may do.
    cleaning: ClassVar[frozenset[str]] = frozenset()
    #: Which operation of a key's allowance each action is; one that is not listed is of its own name.
    operation_of: ClassVar[Mapping[str, str]] = {}
    #: Actions that are done once under an Idempotency-Key, and those whose answer holds a secret.
    creating: ClassVar[frozenset[str]] = frozenset()
    secret: ClassVar[frozenset[str]] = frozenset()

    caller: Caller

    @property
    def owner(self) -> str:
        """Whose the runs are that this request may see."""
        return self.caller.owner

    @property
    def operation_name(self) -> str | None:
        """What a key must be allowed for this request; None where the route has no such method."""
        return self.operation_of.get(self.action, self.action)

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        with one_request(), trail.acting(Act("api")), keeping_out(lambda: sent_texts(self.request)):
            return super().dispatch(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self.format_kwarg = None
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(request)
        cleaning = self.action in self.cleaning
        trail.act_as(Act("api", self.operation_name or ""))
        self.caller = self.identify(request)
        act_for(self.caller)
        if not cleaning:
            self.caller.require(operation=self.operation_name)
        if (token := request.META.get(passes.META)) is not None and not cleaning:
            passes.require(token, self.kwargs.get("testId", request.META.get("HTTP_X_TEST_ID")))
        if self.action in self.secret and idempotency.META in request.META:
            raise IdempotencyUnsupported

    def handle_exception(self, exc: Exception) -> Any:
        if isinstance(exc, idempotency.Replayed):
            response = _as_kept(exc.answer)
            response[idempotency.REPLAYED] = "true"
            return response
        if isinstance(exc, NotAuthenticated | NotAllowed | InvalidPass):
            trail.refused(exc.code, self.request.META.get("REMOTE_ADDR") or "")
        return super().handle_exception(exc)

    @property
    def default_response_headers(self) -> dict[str, str]:
        """Answers hold keys, links and passes: nothing on the way may keep one."""
        return {**super().default_response_headers, "Cache-Control": "no-store"}

    def identify(self, request: Request) -> Caller:
        """Who asks; raises GateClosed, NotAuthenticated."""
        return authenticate(request, cleaning=self.action in self.cleaning)

    def get_exception_handler(self) -> Any:
        return errors.handle

    def test_id(self) -> str:
        """The test id of the header; raises InvalidTestId."""
        test_id = self.request.META.get("HTTP_X_TEST_ID", "")
        if not runs.TEST_ID.fullmatch(test_id) or not test_id.startswith(settings.TEST_ID_PREFIX):
            # What the message says is the document's.
            form = (
                "A header of 1 to 128 letters, digits, '_' and '-', beginning with"
                f" '{settings.TEST_ID_PREFIX}' (TEST_ID_PREFIX)."
            )
            raise InvalidTestId(details={"X-Test-ID": [form]})
        return str(test_id)

    def sent(self) -> dict[str, Any]:
        """The body as it was sent; a test id in it must be the header's, or the path's.

        Raises BodyTooLarge, InvalidInput, TestIdMismatch.
        """
        length = self.request.META.get("CONTENT_LENGTH") or "0"
        if not length.isdecimal() or not length.strip("0"):
            raise InvalidInput("The request has no body: send a JSON object, {} at least.")
        if len(length) > _LENGTH_DIGITS or int(length) > settings.MAX_BODY_BYTES:
            raise BodyTooLarge(
                f"The request body is larger than {settings.MAX_BODY_BYTES} bytes (MAX_BODY_BYTES)."
            )
        data: Any = self.request.data
        named = self.request.META.get("HTTP_X_TEST_ID", self.kwargs.get("testId"))
        if named is not None and data.get("testId", named) != named:
            raise TestIdMismatch
        if self.action in self.creating:
            # Answered before, it needs nothing but its answer, however old its run is by now.
            _ = self.once
        return dict(data)

    @cached_property
    def once(self) -> Once:
        """How the request is done: once, if it says under which key."""
        key = self.request.META.get(idempotency.META)
        if key is None:
            return Once()
        return Once.of(
            key,
            owner=self.owner,
            method=str(self.request.method),
            path=self.request.path_info,
            test_id=self.test_id(),
            body=dict(self.request.data),
        )

    def answered(self, status: int, render: Callable[[Any], Any], do: Callable[[Once], Any]) -> HttpResponse:
        """What `do` returns, as `render` has it; the same bytes as were kept, where they were."""
        self.once.render = lambda result: Answer(status, JSONRenderer().render(render(result)))
        self.once.render_error = _rendered_error
        result = do(self.once)
        kept = self.once.answer
        return Response(render(result), status=status) if kept is None else _as_kept(kept)

    def body(self, serializer: type[BaseSerializer[Any]]) -> dict[str, Any]:
        """The body as `serializer` reads it; raises as `sent`, and where the serializer refuses it."""
        return _read(serializer, self.sent())

    def frame_and_rest(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What every operation takes, as its serializer reads it, and whatever else was sent."""
        sent = self.sent()
        frame = serializers.FrameSerializer().fields
        rest = {name: value for name, value in sent.items() if name not in frame}
        return _read(serializers.FrameSerializer, {name: sent[name] for name in sent if name in frame}), rest

    def create_in_run(
        self,
        work: Any,
        data: dict[str, Any],
        *,
        test_id: str,
        shape: Callable[[Any], Any] = lambda answer: answer,
    ) -> HttpResponse:
        """Run a creating operation in the frame: age first, then all or nothing, or a shadow of it."""
        _refuse_old(data)
        mode = shadow.mode_of(shadow=data.get("shadow", False), deep=data.get("deep", False))
        frame = serializers.FrameSerializer().fields
        given = {name: value for name, value in data.items() if name not in frame and value not in ({}, [])}
        return self.answered(
            201,
            lambda answer: shape(mode.marked(answer)),
            lambda once: shadow.perform(
                mode,
                test_id,
                self.owner,
                work,
                data=given,
                max_age_minutes=data.get("maxAgeMinutes"),
                once=once,
            ),
        )


class OperationViewSet(TestDataViewSet):
    """The operations that are named by the path alone."""

    needs_test_id = True
    cleaning = frozenset({"cleanup"})
    operation_of = {"verify_access": "verify-access", "shadow_copy": "shadow-copies"}
    creating = frozenset({"verify_access", "batch", "shadow_copy", "perform"})
    #: Which one `perform` performs: `operation_viewset` says.
    operation: ClassVar[WireOperation]

    @property
    def operation_name(self) -> str | None:
        if self.action == "unknown":
            return None
        return self.operation.name if self.action == "perform" else super().operation_name

    @openapi.describe(
        "verify_access",
        request=serializers.VerifyAccessSerializer,
        answers={200: serializers.AccessSerializer},
        errors=(400, 401, 403, 409, 422),
        summary="Open a run, or join and renew it",
    )
    def verify_access(self, request: Request) -> HttpResponse:
        test_id = self.test_id()
        data = self.body(serializers.VerifyAccessSerializer)
        address = data.get("testUserEmail", "")
        if address:
            address = require_reserved(address, "testUserEmail")

        def open_or_join(once: Once) -> TestRun:
            with once.transaction():
                run = runs.open_or_join(
                    test_id,
                    owner=self.owner,
                    scope=data.get("scope"),
                    max_age_minutes=data.get("maxAgeMinutes"),
                    seed=data.get("seed"),
                    label=data.get("label", ""),
                    build_id=data.get("buildId", ""),
                    test_user_email=address,
                )
                once.keep(run, run)
            return run

        return self.answered(200, _access, open_or_join)

    @openapi.describe(
        "cleanup",
        request=serializers.CleanupSerializer,
        answers={200: serializers.ReceiptSerializer, 409: serializers.ResidueSerializer},
        summary="Remove the run, or what is listed of it",
        description="The server's record alone decides. Rows that are not the run's are reported and left.",
    )
    def cleanup(self, request: Request) -> Response:
        test_id = self.test_id()
        data = self.body(serializers.CleanupSerializer)
        listed = data.get("createdData")
        pairs = None if listed is None else [(each["type"], each["id"]) for each in listed]
        return _receipt(purge.clean_up(test_id, self.owner, pairs))

    @openapi.describe(
        "batch",
        request=serializers.BatchSerializer,
        answers={201: serializers.BatchAnswerSerializer},
        errors=(400, 401, 403, 404, 409, 422, 502),
        summary="Many rows at once, all or nothing",
        description="{builders: 5, clients: 3, sessionTypes: true, bookings: 2}, or {type: count}.",
    )
    def batch(self, request: Request) -> HttpResponse:
        test_id = self.test_id()
        data, counts = self.frame_and_rest()
        order = scenarios.batch_order(counts)
        self.caller.require(entity_types=[each.name for each, _ in order])
        return self.create_in_run(lambda call: scenarios.run_batch(call, order), data, test_id=test_id)

    @openapi.describe(
        "shadow_copies",
        request=serializers.ShadowCopySerializer,
        answers={201: serializers.CopySerializer},
        errors=(400, 401, 403, 404, 409, 422, 502),
        summary="A copy of a real row for the run to change, without personal data",
        description="Of models that the host allows (SHADOW_COPIES). The copy goes with the run.",
    )
    def shadow_copy(self, request: Request) -> HttpResponse:
        test_id = self.test_id()
        data = self.body(serializers.ShadowCopySerializer)
        label, key = data["model"], data["id"]
        copies.refuse_unless_allowed(label)

        def work(call: entities.Creation) -> dict[str, Any]:
            name, made = copies.copy_row(call, label, key)
            return {**entities.represent(name, made, call.run), "copyOf": key}

        self.once.goes_with_run = True
        return self.create_in_run(work, data, test_id=test_id)

    def perform(self, request: Request) -> HttpResponse:
        """An operation that an app has registered under a name of its own."""
        operation = self.operation
        test_id = self.test_id()
        data = self.body(resolve(operation.request))  # type: ignore[arg-type]
        return self.create_in_run(
            lambda call: scenarios.run_operation(call, operation, data), data, test_id=test_id
        )

    def unknown(self, request: Request, **kwargs: Any) -> Response:
        self.test_id()
        if request.method == "POST":
            data, _ = self.frame_and_rest()
            _refuse_old(data)
        name = self.kwargs["operation"].strip("/")[:_SHOWN]
        advice = (
            f"No app here registers '{name}': operations come from `testdata` modules, those of the"
            " marketplace with 'stagehand_testdata.marketplace' in INSTALLED_APPS. Rows of a factory: POST"
            " entities/{type}."
        )
        raise UnknownOperation(details={"operation": [advice]})


class RunViewSet(TestDataViewSet, GenericViewSet[TestRun]):
    """Inspect, renew and delete runs."""

    cleaning = frozenset({"destroy"})
    operation_of = {
        **dict.fromkeys(("list", "retrieve", "entities", "messages", "receipt"), "read"),
        "partial_update": "renew",
        "issue_pass": "pass",
        "open_session": "sessions",
    }
    secret = frozenset({"issue_pass", "open_session"})
    pagination_class = Pages
    serializer_class = serializers.RunSerializer
    lookup_field = "test_id"
    lookup_url_kwarg = "testId"

    def get_queryset(self) -> QuerySet[TestRun]:
        counts = {
            f"count_{state}": Count("entities", filter=Q(entities__state=state))
            for state in TestEntity.State.values
        }
        return runs.visible(self.owner).annotate(**counts).order_by("-opened_at", "-pk")

    def run_of_path(self, *, deleted: bool = False) -> TestRun:
        test_id = self.kwargs["testId"]
        if self.request.META.get("HTTP_X_TEST_ID", test_id) != test_id:
            raise TestIdMismatch("The X-Test-ID header is not the test ID of the path.")
        if not runs.TEST_ID.fullmatch(test_id):
            raise NotFound
        return runs.find(test_id, self.owner, deleted=deleted)

    @openapi.describe(
        "list_runs",
        answers={200: serializers.RunSerializer(many=True)},
        errors=(400, 401, 403, 404),
        summary="The runs of this key",
    )
    def list(self, request: Request) -> Response:
        page = self.paginate_queryset(self.get_queryset())
        return self.get_paginated_response(serializers.RunSerializer(page, many=True).data)

    @openapi.describe(
        "get_run", answers={200: serializers.RunSerializer}, errors=(400, 401, 403, 404), summary="One run"
    )
    def retrieve(self, request: Request, testId: str) -> Response:
        run = self.run_of_path()
        return Response(serializers.RunSerializer(self.get_queryset().get(pk=run.pk)).data)

    @openapi.describe(
        "renew_run",
        request=serializers.RenewSerializer,
        answers={200: serializers.RunSerializer},
        errors=(400, 401, 403, 404, 409),
        summary="Renew or label a run, within its cap",
    )
    def partial_update(self, request: Request, testId: str) -> Response:
        run = self.run_of_path()
        data = self.body(serializers.RenewSerializer)
        with transaction.atomic(using=runs.ledger_alias()):
            runs.renew(run, max_age_minutes=data.get("maxAgeMinutes"), label=data.get("label"))
        return Response(serializers.RunSerializer(self.get_queryset().get(pk=run.pk)).data)

    @openapi.describe(
        "delete_run",
        answers={200: serializers.ReceiptSerializer, 409: serializers.ResidueSerializer},
        errors=(400, 401, 403, 404),
        summary="Remove the whole run; then it is unknown",
    )
    def destroy(self, request: Request, testId: str) -> Response:
        return _receipt(purge.delete_run(self.run_of_path()))

    @openapi.describe(
        "issue_pass",
        answers={201: serializers.PassSerializer},
        errors=(400, 401, 403, 404, 409),
        summary="A pass that puts requests of the product itself under the run",
        description="A header, or a cookie of a browser under test. The product must have the middleware.",
    )
    def issue_pass(self, request: Request, testId: str) -> Response:
        run = self.run_of_path()
        token, expires_at = passes.grant(run)
        granted = {
            "test_id": run.test_id,
            "token": token,
            "header": passes.HEADER,
            "cookie": {"name": passes.COOKIE, "value": token},
            "expires_at": expires_at,
        }
        return Response(serializers.PassSerializer(granted).data, status=201)

    @openapi.describe(
        "open_session",
        request=serializers.SessionRequestSerializer,
        answers={201: serializers.SessionSerializer},
        errors=(400, 401, 403, 404, 409, 502),
        summary="Signs a user of the run in: a one-time link, and Playwright's storage state",
        description="Both lead to the same session of the product, which ends with the run. Where users are"
        " at an outside provider, the link is the provider's, and `identity` has its tokens.",
    )
    def open_session(self, request: Request, testId: str) -> Response:
        run = self.run_of_path()
        data = self.body(serializers.SessionRequestSerializer)
        _refuse_old(data)
        # The link and the cookies name the host: one that is refused is refused before anything is done.
        request.get_host()
        opened = sign_in.sign_in(
            run,
            data["userId"],
            data.get("next", get_script_prefix()),
            request.META,
            type_name=data.get("type"),
        )
        granted = {
            "test_id": run.test_id,
            "user_id": opened.user_id,
            "link": opened.link if opened.session is None else link_to(opened.token, request),
            "link_until": opened.link_until,
            "storage_state": storage_state(opened, request),
            "expires_at": opened.expires_at,
            **({"identity": opened.details} if opened.details else {}),
        }
        return Response(serializers.SessionSerializer(granted).data, status=201)

    @openapi.describe(
        "list_run_entities",
        answers={200: serializers.EntrySerializer(many=True)},
        errors=(400, 401, 403, 404),
        summary="The ledger of a run, in the order of creation",
    )
    def entities(self, request: Request, testId: str) -> Response:
        run = self.run_of_path()
        wanted = {
            name: request.query_params[name]
            for name in ("type", "state", "origin")
            if name in request.query_params
        }
        _refuse_nul(*wanted.values())
        found: Any = run.entities.filter(**wanted).order_by(F("ordinal").asc(nulls_last=True), "pk")
        page: Any = self.paginate_queryset(found)
        return self.get_paginated_response(serializers.EntrySerializer(page, many=True).data)

    @openapi.describe(
        "list_run_messages",
        answers={200: serializers.MessageSerializer(many=True)},
        errors=(400, 401, 403, 404),
        summary="The e-mails to the run's test addresses, the newest first",
        description="They were kept instead of being sent, and go when the run closes.",
        query={"to": "Only those to this address."},
    )
    def messages(self, request: Request, testId: str) -> Response:
        kept = self.run_of_path().messages.order_by("-pk")
        address = request.query_params.get("to")
        if address is not None:
            _refuse_nul(address)
            kept = kept.filter(recipients__contains=Message.line_of([address.lower()]))
        page: Any = self.paginate_queryset(kept)  # type: ignore[arg-type]
        return self.get_paginated_response(serializers.MessageSerializer(page, many=True).data)

    @openapi.describe(
        "get_run_receipt",
        answers={200: serializers.ReceiptSerializer},
        errors=(400, 401, 403, 404),
        summary="What the last clean-up did; kept when the run is gone",
    )
    def receipt(self, request: Request, testId: str) -> Response:
        return Response(purge.last_receipt(self.run_of_path(deleted=True)).body)


class TokenViewSet(TestDataViewSet):
    """A key for whoever shows a token of a trusted issuer."""

    needs_key = False
    cleaning = frozenset({"exchange"})
    secret = frozenset({"exchange"})

    def identify(self, request: Request) -> Caller:
        return admit_stranger(request)

    @openapi.describe(
        "exchange_token",
        request=serializers.TokenSerializer,
        answers={201: serializers.KeySerializer},
        summary="Exchange a CI job's own OIDC token for an access key of a few minutes",
        description="A token is taken once. Which issuers and claims are trusted is the host's to say.",
    )
    def exchange(self, request: Request) -> Response:
        verified = oidc.verify(self.body(serializers.TokenSerializer)["token"])
        self.caller = replace(self.caller, owner=verified.owner, name=verified.trust.name)
        act_for(self.caller)
        return Response(serializers.KeySerializer(tokens.exchange(verified)).data, status=201)


class EntityTypeViewSet(TestDataViewSet):
    """What can be made here."""

    operation_of = {"list": "read"}

    @openapi.describe(
        "list_entity_types",
        answers={200: serializers.EntityTypeSerializer(many=True)},
        summary="What can be made here, field by field",
    )
    def list(self, request: Request) -> Response:
        return Response([describe(each) for each in get_registry().entity_types])


class EntityViewSet(TestDataViewSet):
    """Rows of any registered factory."""

    needs_test_id = True
    operation_of = {"create": "entities"}
    creating = frozenset({"create"})

    @openapi.describe(
        "create_entities",
        request=serializers.CreateEntitiesSerializer,
        answers={201: openapi.one_or_many("EntityOrEntities", serializers.EntitySerializer)},
        errors=(400, 401, 403, 404, 409, 422, 502),
        summary="One row of any registered factory, or an array of as many as `count` says",
    )
    def create(self, request: Request, type: str) -> HttpResponse:
        self.caller.require(entity_types=[type])
        test_id = self.test_id()
        data = self.body(serializers.CreateEntitiesSerializer)
        entity_type = entities.entity_type_named(type)
        fields = _read(fields_serializer(entity_type), data.get("fields", {}), under="fields")
        count = data.get("count")

        def work(call: entities.Creation) -> list[dict[str, Any]]:
            made = entities.create_entities(call, type, fields, count or 1)
            return [entities.represent(type, each, call.run) for each in made]

        return self.create_in_run(
            work,
            {**data, "fields": fields},
            test_id=test_id,
            shape=lambda answer: answer[0] if count is None else answer,
        )


class ScenarioViewSet(TestDataViewSet):
    """Registered scenarios."""

    needs_test_id = True
    operation_of = {"create": "scenarios"}
    creating = frozenset({"create"})

    @openapi.describe(
        "run_scenario",
        request=serializers.FrameSerializer,
        answers={201: serializers.ScenarioAnswerSerializer},
        errors=(400, 401, 403, 404, 409, 422, 502),
        summary="All rows of a registered scenario",
    )
    def create(self, request: Request, name: str) -> HttpResponse:
        test_id = self.test_id()
        self.sent()
        scenario = scenarios.scenario_named(name)
        data = self.body(resolve(scenario.request) if scenario.request else serializers.FrameSerializer)  # type: ignore[arg-type]
        return self.create_in_run(
            lambda call: scenarios.run_scenario(call, scenario, data), data, test_id=test_id
        )


def _read(serializer: type[BaseSerializer[Any]], data: Any, *, under: str | None = None) -> dict[str, Any]:
    reader: Any = serializer(data=data)
    if not reader.is_valid():
        raise ValidationError({under: reader.errors} if under else reader.errors)
    valid: dict[str, Any] = reader.validated_data
    return valid


def _access(run: TestRun) -> Any:
    """The answer of verify-access."""
    granted = {
        "success": True,
        "test_id": run.test_id,
        "scope": run.scope,
        "shadow": settings.FORCE_SHADOW,
        "seed": run.seed,
        "maxAgeMinutes": runs.minutes_left(run),
        "expires_at": run.expires_at,
        "environment": settings.ENVIRONMENT,
    }
    return serializers.AccessSerializer(granted).data


def _as_kept(answer: Answer) -> HttpResponse:
    return HttpResponse(answer.body, status=answer.status, content_type=JSONRenderer.media_type)


def _rendered_error(error: TestDataError) -> Answer:
    response = errors.response_to(error)
    return Answer(response.status_code, JSONRenderer().render(response.data))


def _refuse_nul(*texts: str) -> None:
    """No database can be asked for one."""
    if any("\0" in text for text in texts):
        raise InvalidInput("The query holds a NUL character.")


def _receipt(outcome: purge.Outcome) -> Response:
    if outcome.success:
        return Response(outcome.receipt)
    return Response({**outcome.receipt, **errors.body("residue", outcome.message)}, status=409)


def _refuse_old(data: dict[str, Any]) -> None:
    """The client's own idea of its age can only make the server stricter."""
    created = data.get("testCreationTime")
    if created is None:
        return
    minutes = min(data.get("maxAgeMinutes") or _HOUR_MINUTES, _DAY_MINUTES)
    if time.time() * 1000 - created > minutes * 60 * 1000:
        raise TooOld
