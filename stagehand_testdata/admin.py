"""The ledger in the admin: runs, entities, receipts and kept e-mails to read, and two actions on runs.

# Note [View only]
The ledger is the proof that a row may be removed: who could edit it could have a real row removed, or a
test row forgotten. So nobody adds, changes or deletes anything here, superusers included.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django import forms
from django.apps import apps
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce, Now
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, reverse
from django.utils.cache import add_never_cache_headers
from django.utils.decorators import method_decorator
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil
from django.utils.timezone import localtime
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters

from .access import keys, trail
from .access.callers import known_operations
from .access.trail import Act
from .exceptions import TestDataError
from .logs import log_error
from .models import AccessKey, AuditEntry, Message, Receipt, TestEntity, TestRun
from .operations import runs
from .operations.purge.plan import EXPLANATIONS, Plan, make_plan
from .operations.purge.purge import Outcome, purge_run
from .registry import load_registry

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin  # takes no type argument at run time

logger = logging.getLogger(__name__)

#: More runs than that are work for `manage.py purge_test_data`, not for one request and one page.
MOST_RUNS = 50
#: Rows that stay are listed one by one up to here, for each run.
MOST_HELD = 100
LAST_RECEIPTS = 5

#: In the order in which they matter to whoever reads.
STATES = (
    TestEntity.State.LIVE,
    TestEntity.State.QUARANTINED,
    TestEntity.State.REMOVED,
    TestEntity.State.GONE,
)


def page_url(site: admin.AdminSite, model: type[Any], page: str, *args: Any, **query: Any) -> str:
    """The address of an admin page; empty where this site has none."""
    name = f"{site.name}:{model._meta.app_label}_{model._meta.model_name}_{page}"
    try:
        url = reverse(name, args=[quote(each) for each in args], current_app=site.name)
    except NoReverseMatch:
        return ""
    return f"{url}?{urlencode(query)}" if query else url


def may_view(site: admin.AdminSite, model: type[Any], request: HttpRequest) -> bool:
    return site.is_registered(model) and site.get_model_admin(model).has_view_permission(request)


def badge(tone: str, text: Any) -> SafeString:
    """A state, said by its word; the colour (`tone`, of our own) only helps the eye."""
    return format_html('<span class="stagehand-badge stagehand-{}">{}</span>', tone, str(text).lower())


def link(url: str, text: Any) -> SafeString | str:
    return format_html('<a href="{}">{}</a>', url, text) if url else str(text)


def moment(when: dt.datetime, text: str) -> SafeString:
    """A time in words; the exact one shows when pointed at."""
    exact = date_format(localtime(when), "DATETIME_FORMAT")
    return format_html('<time datetime="{}" title="{}">{}</time>', when.isoformat(), exact, text)


def listed(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Counts for a template, sorted: jsonb keeps no order.

    No mapping, because a template would take an entity type called "items" for the method.
    """
    return sorted(counts.items())


def in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in listed(counts)) or "nothing"


def outcome_badge(receipt: Receipt) -> SafeString:
    done = receipt.body.get("success")
    return badge("live", "complete") if done else badge("quarantined", "rows left")


def held_lines(held: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What stays, as plans and receipts say it over the wire, for a table."""
    return [
        {
            "type": each["type"],
            "key": each["id"],
            "why": EXPLANATIONS.get(each["reason"], each["reason"]),
            "held_by": in_words(each["blockedBy"]),
        }
        for each in held
    ]


def act_of(request: HttpRequest) -> Act:
    """What the audit says of it: the user's key, for a name may be an address of mail."""
    asked = request.POST.get("action", "")
    by = f"user:{request.user.pk}"
    return Act("admin", asked if asked.isidentifier() else "", by, request.META.get("REMOTE_ADDR") or "")


class LedgerAdmin(ModelAdmin):
    """What the pages share. See Note [View only]."""

    list_per_page = 50
    show_full_result_count = False

    class Media:
        css = {"all": ["stagehand_testdata/admin.css"]}

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Where purges and renewals look too: a replica may lag behind.
        return super().get_queryset(request).using(runs.ledger_alias())

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        with trail.acting(act_of(request)):
            return super().changelist_view(request, extra_context)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="run", ordering="run__test_id")
    def run_link(self, obj: TestEntity | Receipt | Message) -> SafeString | str:
        return link(page_url(self.admin_site, TestRun, "change", obj.run_id), obj.run)


class EndFilter(admin.SimpleListFilter):
    title = "end"
    parameter_name = "end"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("running", "Running"), ("expired", "Expired, waits for its purge"), ("closed", "Closed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[TestRun]) -> QuerySet[TestRun]:
        if self.value() == "running":
            return queryset.exclude(state=TestRun.State.CLOSED).filter(expires_at__gt=Now())
        if self.value() == "expired":
            return queryset.exclude(state=TestRun.State.CLOSED).filter(expires_at__lte=Now())
        return queryset.filter(state=TestRun.State.CLOSED) if self.value() else queryset


class FailingFilter(admin.SimpleListFilter):
    title = "purge"
    parameter_name = "purge"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("failing", "The last one did not finish")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[TestRun]) -> QuerySet[TestRun]:
        return queryset.filter(purge_failures__gt=0) if self.value() else queryset


class RowsFilter(admin.SimpleListFilter):
    title = "rows"
    parameter_name = "rows"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("standing", "Some still stand"),
            ("quarantined", "Some are quarantined"),
            ("none", "None stand"),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[TestRun]) -> QuerySet[TestRun]:
        standing = TestEntity.objects.standing().filter(run=OuterRef("pk"))
        if self.value() == "none":
            return queryset.filter(~Exists(standing))
        if self.value() == "quarantined":
            standing = standing.filter(state=TestEntity.State.QUARANTINED)
        return queryset.filter(Exists(standing)) if self.value() else queryset


#: More than any key of a run has.
_KEY_DIGITS = 20


class RunFilter(admin.SimpleListFilter):
    """One run's entries: chosen by a link, and shown only then."""

    title = "run"
    parameter_name = "run"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(run.pk), run.test_id) for run in self._chosen()]

    def has_output(self) -> bool:
        return self.value() is not None

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(run__in=self._chosen()) if self.value() else queryset

    def _chosen(self) -> list[TestRun]:
        chosen = self.value() or ""
        if not (chosen.isascii() and chosen.isdecimal() and len(chosen) < _KEY_DIGITS):
            return []
        return list(TestRun.objects.using(runs.ledger_alias()).filter(pk=chosen))


class OutcomeFilter(admin.SimpleListFilter):
    title = "outcome"
    parameter_name = "outcome"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("complete", "Complete"), ("left", "Rows left")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Receipt]) -> QuerySet[Receipt]:
        return queryset.filter(body__success=self.value() == "complete") if self.value() else queryset


def count_column(state: TestEntity.State) -> Any:
    """A column of the runs: how many of their entries are in that state."""
    name = f"{state.value}_count"

    @admin.display(description=state.label.lower(), ordering=name)
    def column(run: TestRun) -> SafeString:
        count = getattr(run, name)
        return format_html(
            '<span class="stagehand-count stagehand-{}">{}</span>', state if count else "none", count
        )

    column.__name__ = name  # the admin's CSS class
    return column


def count_in(state: TestEntity.State) -> Coalesce:
    entries = TestEntity.objects.filter(run=OuterRef("pk"), state=state).order_by().values("run")
    return Coalesce(Subquery(entries.annotate(count=Count("pk")).values("count")), 0)


@admin.register(TestRun)
class TestRunAdmin(LedgerAdmin):
    list_display = ["run", "state_badge", "ends", *map(count_column, STATES), "scope", "owner", "opened_at"]
    list_filter = [EndFilter, FailingFilter, RowsFilter, "state", "scope"]
    search_fields = ["test_id", "label", "owner", "build_id", "test_user_email"]
    search_help_text = "Test ID, label, owner, build or e-mail"
    date_hierarchy = "opened_at"
    actions = ["purge", "renew"]
    readonly_fields = ["state_badge", "ends"]
    fieldsets = [
        (None, {"fields": ["test_id", "label", "state_badge", "ends", "scope", "owner"]}),
        ("Where from", {"fields": ["seed", "build_id", "test_user_email"]}),
        (
            "Times",
            {"fields": ["opened_at", "expires_at", "latest_end", "closing_at", "closed_at", "deleted_at"]},
        ),
        ("Purges that did not finish", {"fields": ["purge_failures", "purge_error", "next_purge_at"]}),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[TestRun]:
        counts = {f"{state.value}_count": count_in(state) for state in STATES}
        found: QuerySet[TestRun] = super().get_queryset(request)
        return found.annotate(now=Now(), **counts)

    def has_purge_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("stagehand_testdata.purge_testrun")

    def has_renew_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("stagehand_testdata.renew_testrun")

    @admin.display(description="state", ordering="state")
    def state_badge(self, run: Any) -> SafeString:
        expired = run.state == TestRun.State.OPEN and run.expires_at <= run.now
        state = badge("expired", "expired") if expired else badge(run.state, run.get_state_display())
        if not run.purge_failures:
            return state
        return format_html("{} {}", state, badge("quarantined", f"purge failed {run.purge_failures} times"))

    @admin.display(description="run", ordering="test_id")
    def run(self, run: TestRun) -> SafeString:
        label = format_html('<span class="stagehand-label">{}</span>', run.label) if run.label else ""
        return format_html("{}{}", run.test_id, label)

    @admin.display(description="ends", ordering="expires_at")
    def ends(self, run: Any) -> SafeString:
        if run.closed_at:
            return moment(run.closed_at, f"closed {timesince(run.closed_at, run.now, depth=1)} ago")
        if run.expires_at <= run.now:
            return moment(run.expires_at, f"expired {timesince(run.expires_at, run.now, depth=1)} ago")
        return moment(run.expires_at, f"in {timeuntil(run.expires_at, run.now, depth=1)}")

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        run = context["original"]
        site = self.admin_site
        see_receipts = may_view(site, Receipt, request)
        context |= {
            "counts": self._counts(request, run),
            "states": [badge(state.value, state.label) for state in STATES],
            "receipts": self._last_receipts(run) if see_receipts else [],
            "receipts_url": page_url(site, Receipt, "changelist", run=run.pk) if see_receipts else "",
            "entities_url": self._entities_url(request, run=run.pk),
            "runs_url": page_url(site, TestRun, "changelist"),
            "may_purge": self.has_purge_permission(request) and run.state != TestRun.State.CLOSED,
            "may_renew": self.has_renew_permission(request)
            and run.state == TestRun.State.OPEN
            and run.expires_at > run.now,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def _entities_url(self, request: HttpRequest, **query: Any) -> str:
        seen = may_view(self.admin_site, TestEntity, request)
        return page_url(self.admin_site, TestEntity, "changelist", **query) if seen else ""

    def _counts(self, request: HttpRequest, run: TestRun) -> list[dict[str, Any]]:
        """The run's entries by type, each with its count in every state."""
        by_state = {state.value: Count("pk", filter=Q(state=state)) for state in STATES}
        entries = TestEntity.objects.using(runs.ledger_alias()).filter(run=run).order_by("type")
        by_type: Iterable[Any] = entries.values("type").annotate(**by_state)
        return [
            {
                "type": found["type"],
                "url": self._entities_url(request, run=run.pk, type=found["type"]),
                "counts": [(state.value, found[state.value]) for state in STATES],
            }
            for found in by_type
        ]

    def _last_receipts(self, run: TestRun) -> list[dict[str, Any]]:
        found = Receipt.objects.using(runs.ledger_alias()).filter(run=run)[:LAST_RECEIPTS]
        return [
            {
                "created_at": receipt.created_at,
                "url": page_url(self.admin_site, Receipt, "change", receipt.pk),
                "badge": outcome_badge(receipt),
                "removed": in_words(receipt.body.get("removed", {})),
                "gone": in_words(receipt.body.get("alreadyGone", {})),
                "remaining": receipt.body.get("remaining"),
            }
            for receipt in found
        ]

    # A purge commits batch by batch, also where the host has ATOMIC_REQUESTS.
    @transaction.non_atomic_requests(using=runs.ledger_alias())
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        return super().changelist_view(request, extra_context)

    @admin.action(description="Purge selected test runs…", permissions=["purge"])
    def purge(self, request: HttpRequest, queryset: QuerySet[TestRun]) -> HttpResponse | None:
        """Show what a purge would do; with the digests of what was shown, do it."""
        try:
            plans = [(run, make_plan(run)) for run in self._selected(request, queryset)]
        except TestDataError as refused:
            self.message_user(request, refused.message, messages.ERROR)
            return None
        if not plans:
            return None
        shown = set(request.POST.getlist("digest"))
        if shown != {plan.digest for _, plan in plans}:
            return self._confirm_purge(request, plans, changed=bool(shown))
        for run, plan in plans:
            self._purge_one(request, run, plan)
        return None

    @admin.action(description="Renew selected test runs", permissions=["renew"])
    def renew(self, request: HttpRequest, queryset: QuerySet[TestRun]) -> None:
        """Give each run the time that a new one would get; none ends sooner for it."""
        for run in self._selected(request, queryset):
            left: dt.timedelta = run.expires_at - run.now  # type: ignore[attr-defined]
            minutes = max(runs.default_minutes(run.scope), left.total_seconds() / 60)
            try:
                with transaction.atomic(using=runs.ledger_alias()):
                    renewed: Any = runs.renew(run, max_age_minutes=minutes)
            except TestDataError as refused:
                self.message_user(request, f"{run}: {refused.message}", messages.ERROR)
                continue
            said = f"{runs.minutes_left(renewed)} minutes left"
            self.log_change(request, run, f"Renewed: {said}.")
            self.message_user(request, f"{run}: {said}.", messages.SUCCESS)

    def _selected(self, request: HttpRequest, queryset: QuerySet[TestRun]) -> Sequence[TestRun]:
        """The runs to act on; none, and a message, where there are too many or none any more."""
        found = list(queryset[: MOST_RUNS + 1])
        if len(found) > MOST_RUNS:
            command = "'manage.py purge_test_data' has no such limit"
            self.message_user(request, f"At most {MOST_RUNS} runs at a time; {command}.", messages.ERROR)
            return []
        if not found:
            self.message_user(request, "None of these runs is in the list any more.", messages.WARNING)
        return found

    def _confirm_purge(
        self, request: HttpRequest, plans: Sequence[tuple[TestRun, Plan]], *, changed: bool
    ) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": "Purge this test run?" if len(plans) == 1 else f"Purge these {len(plans)} test runs?",
            "opts": self.opts,
            "media": self.media,
            "changed": changed,
            "plans": [self._plan_lines(run, plan) for run, plan in plans],
            "total": sum(sum(plan.removable.values()) for _, plan in plans),
            "back_url": request.get_full_path(),
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/stagehand_testdata/testrun/purge.html", context)

    def _plan_lines(self, run: TestRun, plan: Plan) -> dict[str, Any]:
        return {
            "run": run,
            "badge": self.state_badge(run),
            "removable": listed(plan.removable),
            "removable_total": sum(plan.removable.values()),
            "gone": listed(plan.gone),
            "gone_total": sum(plan.gone.values()),
            "held": held_lines(each.as_wire() for each in plan.held[:MOST_HELD]),
            "held_total": len(plan.held),
            "held_unlisted": max(len(plan.held) - MOST_HELD, 0),
            "digest": plan.digest,
        }

    def _purge_one(self, request: HttpRequest, run: TestRun, plan: Plan) -> None:
        """Carry out the plan that was shown and confirmed, or nothing."""
        try:
            outcome: Outcome = purge_run(run, expect=plan.digest)
        except TestDataError as refused:
            self.message_user(request, f"{run}: {refused.message}", messages.ERROR)
            return
        except Exception as error:  # noqa: BLE001 - it is logged, and told to the user
            # One poisoned run must not keep the others waiting.
            log_error(logger, f"the purge of {run.test_id} failed", error)
            text = f"{run}: the purge failed; the server's log has the reason. It can be repeated."
            self.message_user(request, text, messages.ERROR)
            return
        receipt = outcome.receipt
        said = f"removed {in_words(receipt['removed'])}"
        if receipt["alreadyGone"]:
            said += f"; already gone: {in_words(receipt['alreadyGone'])}"
        if receipt["shadow"]["entries"]:
            said += f"; shadows closed: {in_words(receipt['shadow']['entries'])}"
        self.log_change(request, run, f"Purged: {said}. {outcome.message}".strip())
        if outcome.success:
            self.message_user(request, f"{run}: {said}. The run is closed.", messages.SUCCESS)
        else:
            self.message_user(request, f"{run}: {said}. {outcome.message}", messages.ERROR)


def attach_row_urls(site: admin.AdminSite, request: HttpRequest, entries: Sequence[Any]) -> None:
    """Set `row_url` on each entry: its row's own admin page, empty where the user cannot open one.

    One query for each model, whatever the number of entries.
    """
    wanted: dict[str, list[Any]] = {}
    for entry in entries:
        entry.row_url = ""
        # Under the key of a row that is gone there may be another one by now.
        if entry.tombstone == 0:
            wanted.setdefault(entry.model, []).append(entry)
    for label, standing in wanted.items():
        try:
            model = apps.get_model(label)
        except (LookupError, ValueError):
            continue
        if site.is_registered(model):
            _attach_urls_of(site.get_model_admin(model), request, standing)


def _attach_urls_of(row_admin: Any, request: HttpRequest, entries: Sequence[Any]) -> None:
    by_key = {}
    for entry in entries:
        try:
            key = entry.row_key(row_admin.model)
        except (ValueError, TypeError, ValidationError):
            continue  # the model has had another kind of key since
        if key is not None:
            by_key[key] = entry
    if not by_key:
        return
    # The queryset of that page: what it hides it would not open either.
    for row in row_admin.get_queryset(request).filter(pk__in=list(by_key)):
        if row.pk in by_key and row_admin.has_view_or_change_permission(request, row):
            by_key[row.pk].row_url = page_url(row_admin.admin_site, row_admin.model, "change", row.pk)


class EntityList(ChangeList):
    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        attach_row_urls(self.model_admin.admin_site, request, self.result_list)


@admin.register(TestEntity)
class TestEntityAdmin(LedgerAdmin):
    list_display = ["__str__", "state_badge", "held_by", "row_link", "run_link", "origin", "created_at"]
    list_filter = [RunFilter, "state", "origin", "type"]
    list_select_related = ["run"]
    search_fields = ["key_text", "type", "model", "run__test_id", "run__label"]
    search_help_text = "Key, type, model, or the run's test ID or label"
    date_hierarchy = "created_at"
    readonly_fields = ["state_badge", "row_link", "why", "held_by"]
    fieldsets = [
        (None, {"fields": ["run", "type", "key_text", "row_link", "state_badge", "why", "held_by"]}),
        ("How it came", {"fields": ["ordinal", "origin", "model", "database", "created_at", "removed_at"]}),
    ]

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        one_run = RunFilter.parameter_name in request.GET
        return [name for name in self.list_display if not (one_run and name == "run_link")]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return EntityList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        entry = super().get_object(request, object_id, from_field)
        if entry is not None:
            attach_row_urls(self.admin_site, request, [entry])
        return entry

    @admin.display(description="state", ordering="state")
    def state_badge(self, entry: TestEntity) -> SafeString:
        return badge(entry.state, entry.get_state_display())

    @admin.display(description="row")
    def row_link(self, entry: Any) -> SafeString | str:
        return link(entry.row_url, f"Open {entry.model.rpartition('.')[2]}") if entry.row_url else "-"

    @admin.display(description="why it stays")
    def why(self, entry: TestEntity) -> str:
        return EXPLANATIONS.get(entry.reason, entry.reason) or "-"

    @admin.display(description="held by")
    def held_by(self, entry: TestEntity) -> str:
        return in_words(entry.blocked_by) if entry.blocked_by else "-"


@admin.register(Receipt)
class ReceiptAdmin(LedgerAdmin):
    list_display = ["created_at", "run_link", "outcome", "remaining", "removed", "already_gone"]
    list_filter = [RunFilter, OutcomeFilter, "created_at"]
    list_select_related = ["run"]
    search_fields = ["run__test_id", "run__label", "digest"]
    search_help_text = "The run's test ID or label, or the receipt's digest"
    date_hierarchy = "created_at"
    readonly_fields = ["outcome", "remaining"]
    fields = ["run", "created_at", "outcome", "remaining", "digest"]

    @admin.display(description="outcome")
    def outcome(self, receipt: Receipt) -> SafeString:
        return outcome_badge(receipt)

    @admin.display(description="removed")
    def removed(self, receipt: Receipt) -> str:
        return in_words(receipt.body.get("removed", {}))

    @admin.display(description="already gone")
    def already_gone(self, receipt: Receipt) -> str:
        return in_words(receipt.body.get("alreadyGone", {}))

    @admin.display(description="rows left")
    def remaining(self, receipt: Receipt) -> int:
        left: int = receipt.body.get("remaining", 0)
        return left

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        body = context["original"].body
        held = body.get("quarantined", [])
        context |= {
            "removed": listed(body.get("removed", {})),
            "gone": listed(body.get("alreadyGone", {})),
            "held": held_lines(held[:MOST_HELD]),
            "held_unlisted": max(len(held) - MOST_HELD, 0),
            "not_owned": body.get("notOwned", [])[:MOST_HELD],
        }
        return super().render_change_form(request, context, *args, **kwargs)


@admin.register(AuditEntry)
class AuditEntryAdmin(LedgerAdmin):
    list_display = ["at", "who", "operation", "what", "how_many", "result_badge", "via", "address"]
    list_filter = ["result", "operation", "via", "at"]
    search_fields = ["test_id", "owner", "key_id", "name", "address", "subject"]
    search_help_text = "Test ID, who, key, address, or what it was done to"
    date_hierarchy = "at"
    readonly_fields = ["who", "what", "how_many", "result_badge"]
    fieldsets = [
        (None, {"fields": ["at", "operation", "what", "how_many", "result_badge"]}),
        ("Who", {"fields": ["owner", "name", "key_id", "via", "asked", "address"]}),
    ]

    @admin.display(description="who", ordering="owner")
    def who(self, entry: AuditEntry) -> SafeString:
        name = format_html('<span class="stagehand-label">{}</span>', entry.name) if entry.name else ""
        return format_html("{}{}", entry.owner or "-", name)

    @admin.display(description="what", ordering="test_id")
    def what(self, entry: AuditEntry) -> SafeString | str:
        if entry.run_id is None:
            return entry.subject or "-"
        run = link(page_url(self.admin_site, TestRun, "change", entry.run_id), entry.test_id)
        return format_html("{} {}", run, entry.subject) if entry.subject else run

    @admin.display(description="how many")
    def how_many(self, entry: AuditEntry) -> str:
        return in_words(entry.counts) if entry.counts else "-"

    @admin.display(description="result", ordering="result")
    def result_badge(self, entry: AuditEntry) -> SafeString:
        tones = {trail.DONE: "live", trail.BEGUN: "closing", trail.RESIDUE: "quarantined"}
        return badge(tones.get(entry.result, "expired"), entry.result)


@admin.register(Message)
class MessageAdmin(LedgerAdmin):
    """HTML is shown as its source."""

    list_display = ["created_at", "subject_text", "to", "run_link"]
    list_filter = [RunFilter, "created_at"]
    list_select_related = ["run"]
    search_fields = ["subject", "recipients", "run__test_id", "run__label"]
    search_help_text = "Subject, address, or the run's test ID or label"
    date_hierarchy = "created_at"
    readonly_fields = ["to"]
    fields = ["run", "created_at", "sender", "to", "subject", "text", "html", "attachments", "truncated"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        found: QuerySet[Message] = super().get_queryset(request)
        one = request.resolver_match is not None and "object_id" in request.resolver_match.kwargs
        # A list of bodies would be megabytes that nobody sees.
        return found if one else found.defer("text", "html")

    @admin.display(description="subject", ordering="subject")
    def subject_text(self, message: Message) -> str:
        return message.subject or "(none)"

    @admin.display(description="to")
    def to(self, message: Message) -> str:
        return ", ".join(message.addresses)


def _limit_field(name: str) -> forms.Field:
    column: Any = AccessKey._meta.get_field(name)
    initial = column.default if column.has_default() else None
    return forms.IntegerField(
        required=False, min_value=1, max_value=2**31 - 1, initial=initial, help_text=column.help_text
    )


class KeyForm(forms.Form):
    """What a key is to be; what the form makes is not a row, but a row and a text that is shown once."""

    name = forms.CharField(max_length=AccessKey.NAME_LENGTH, help_text="What it is for.")
    holder = forms.CharField(
        max_length=AccessKey.HOLDER_LENGTH, required=False, help_text="Who answers for it: a person, a team."
    )
    days = forms.IntegerField(initial=90, min_value=1, max_value=3650, help_text="How long it counts.")
    operations = forms.MultipleChoiceField(required=False, help_text="None chosen: everything.")
    entity_types = forms.MultipleChoiceField(required=False, help_text="None chosen: all types.")
    scopes = forms.MultipleChoiceField(
        required=False, choices=TestRun.Scope.choices, help_text="None chosen: runs of every scope."
    )
    networks = forms.CharField(
        required=False, help_text="Where it may come from, as '10.0.0.0/8, 2001:db8::/32'; empty: anywhere."
    )
    max_minutes = _limit_field("max_minutes")
    max_live_rows = _limit_field("max_live_rows")
    max_open_runs = _limit_field("max_open_runs")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen: Any = self.fields["operations"]
        chosen.choices = [(name, name) for name in sorted(known_operations())]
        chosen = self.fields["entity_types"]
        chosen.choices = [(each.name, each.name) for each in load_registry().entity_types]

    def clean(self) -> dict[str, Any]:
        given = {name: value for name, value in self.cleaned_data.items() if name not in ("days", "networks")}
        listed = (part.strip() for part in self.cleaned_data.get("networks", "").split(","))
        given["networks"] = [each for each in listed if each]
        given["lifetime"] = dt.timedelta(days=self.cleaned_data.get("days") or 1)
        if not self.errors:
            try:
                keys.fields(**given)
            except TestDataError as refused:
                raise ValidationError(refused.details or refused.message) from refused
        return given


@admin.register(AccessKey)
class AccessKeyAdmin(LedgerAdmin):
    """Keys are made and shown once, rotated and revoked here, and not changed: their secrets are nowhere."""

    list_display = ["name", "public_id", "holder", "state_badge", "expires_at", "last_used_at"]
    list_filter = ["expires_at", "revoked_at"]
    search_fields = ["name", "public_id", "holder", "owner"]
    search_help_text = "Name, ID, holder or owner"
    readonly_fields = ["state_badge"]
    fields = [
        *("name", "public_id", "holder", "owner", "state_badge"),
        *("created_at", "expires_at", "revoked_at", "last_used_at", "former_until"),
        *("operations", "entity_types", "scopes", "networks"),
        *("max_minutes", "max_live_rows", "max_open_runs"),
    ]
    actions = ["rotate", "revoke"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[AccessKey]:
        found: QuerySet[AccessKey] = super().get_queryset(request).annotate(now=Now())
        return found

    def has_add_permission(self, request: HttpRequest) -> bool:
        return admin.ModelAdmin.has_add_permission(self, request)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Whoever may change keys: to revoke or rotate one is all the change there is."""
        return admin.ModelAdmin.has_change_permission(self, request)

    @admin.display(description="state")
    def state_badge(self, key: Any) -> SafeString:
        if key.revoked_at is not None:
            return badge("gone", "revoked")
        return badge("gone", "expired") if key.expires_at <= key.now else badge("live", "counts")

    @method_decorator(sensitive_post_parameters())
    @method_decorator(csrf_protect)
    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = KeyForm(request.POST or None)
        if form.is_valid():
            with trail.acting(act_of(request)):
                made = keys.create(**form.cleaned_data)
            self.log_addition(request, made.key, "Made.")
            return self._show_once(request, made, "Made")
        return TemplateResponse(
            request,
            "admin/stagehand_testdata/accesskey/add.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "form": form,
                "title": "Make an access key",
            },
        )

    @admin.action(description="Give the selected access key another secret", permissions=["revoke"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[AccessKey]) -> HttpResponse | None:
        chosen = list(queryset[:2])
        if len(chosen) != 1:
            self.message_user(request, "One key at a time: its new secret is shown once.", messages.ERROR)
            return None
        try:
            made = keys.rotate(chosen[0])
        except TestDataError as refused:
            self.message_user(request, f"{chosen[0]}: {refused.message}", messages.ERROR)
            return None
        self.log_change(request, made.key, "Given another secret.")
        return self._show_once(request, made, "Rotated")

    @admin.action(description="Revoke selected access keys", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[AccessKey]) -> None:
        for key in queryset:
            keys.revoke(key)
            self.log_change(request, key, "Revoked.")
            self.message_user(request, f"{key} ({key.public_id}) counts no more.", messages.SUCCESS)

    def _show_once(self, request: HttpRequest, made: keys.Made, done: str) -> HttpResponse:
        """The answer itself has the key: a message would wait for the next page in a cookie or a session."""
        response = TemplateResponse(
            request,
            "admin/stagehand_testdata/accesskey/shown_once.html",
            {
                **self.admin_site.each_context(request),
                "opts": self.opts,
                "media": self.media,
                "title": f"{done}: {made.key}",
                "key": made.key,
                "text": made.text,
            },
        )
        add_never_cache_headers(response)
        return response
