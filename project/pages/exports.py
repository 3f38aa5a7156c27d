"""The listing for machines: as CSV, as JSON, as a feed, as figures, as a map of the site."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from typing import Any

from django.contrib.sitemaps import Sitemap
from django.contrib.syndication.views import Feed
from django.core.paginator import Paginator
from django.db.models import Avg, Count, Max, Min, QuerySet
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import reverse, reverse_lazy
from django.utils.feedgenerator import Atom1Feed
from django.views.decorators.http import require_safe

from stagehand_testdata.marketplace.models import Booking, Builder, SessionType

from . import listing
from .forms import BuilderFilters

PAGE_SIZE = 50
COLUMNS = ("id", "display_name", "headline", "hourly_rate", "availability", "validation_tier", "created_at")


#: How a formula may begin, as OWASP lists it.
_RECKONED = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")
_NOT_IN_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


class _Line:
    """What csv writes to: it hands each line on."""

    def write(self, line: str) -> str:
        return line


def _for_a_spreadsheet(value: Any) -> Any:
    """A text that a spreadsheet would reckon with gets a quote before it, which spreadsheets do not show."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_RECKONED) else value


@require_safe
def builders_csv(request: HttpRequest) -> StreamingHttpResponse:
    """All builders that pass the listing's filters."""
    found = _filtered(request).values_list(*COLUMNS)
    writer = csv.writer(_Line())

    def lines() -> Iterator[str]:
        yield writer.writerow(COLUMNS)
        for row in found.iterator(chunk_size=500):
            yield writer.writerow(map(_for_a_spreadsheet, row))

    headers = {"Content-Disposition": 'attachment; filename="builders.csv"'}
    return StreamingHttpResponse(lines(), content_type="text/csv; charset=utf-8", headers=headers)


@require_safe
def builders_json(request: HttpRequest) -> JsonResponse:
    """A page of the builders that pass the listing's filters."""
    page = Paginator(_filtered(request), PAGE_SIZE).get_page(request.GET.get("page"))
    shown = [{name: getattr(each, name) for name in COLUMNS} for each in page]
    return JsonResponse({"count": page.paginator.count, "page": page.number, "results": shown})


@require_safe
def figures(request: HttpRequest) -> JsonResponse:
    """How large the marketplace is."""
    rates = Builder.objects.aggregate(
        average=Avg("hourly_rate"), lowest=Min("hourly_rate"), highest=Max("hourly_rate")
    )
    return JsonResponse(
        {
            "builders": Builder.objects.count(),
            "rates": rates,
            "tiers": _counted(Builder.objects.all(), "validation_tier"),
            "sessions": _counted(SessionType.objects.all(), "title"),
            "bookings": _counted(Booking.objects.all(), "status"),
            "joined": list(Builder.objects.dates("created_at", "month")),
            "latestBooking": Booking.objects.aggregate(latest=Max("start_time"))["latest"],
        }
    )


class NewestBuilders(Feed):
    feed_type = Atom1Feed
    title = "Builders who joined lately"
    link = reverse_lazy("pages:builders")

    def items(self) -> QuerySet[Builder]:
        return listing.builders({"sort": "newest"})[:20]

    def item_title(self, item: Builder) -> str:
        return _for_xml(item.display_name)

    def item_description(self, item: Builder) -> str:
        return _for_xml(item.headline)

    def item_link(self, item: Builder) -> str:
        return reverse("pages:builder", args=[item.pk])

    def item_updateddate(self, item: Builder) -> Any:
        return item.updated_at


class BuilderSitemap(Sitemap):
    def items(self) -> QuerySet[Builder]:
        return Builder.objects.listed().order_by("pk")

    def location(self, item: Builder) -> str:
        return reverse("pages:builder", args=[item.pk])

    def lastmod(self, item: Builder) -> Any:
        return item.updated_at


def _for_xml(text: str) -> str:
    """The text without the characters that XML has no way to write."""
    return _NOT_IN_XML.sub(" ", text)


def _filtered(request: HttpRequest) -> QuerySet[Builder]:
    return listing.builders(BuilderFilters(request.GET).usable())


def _counted(rows: QuerySet[Any], field: str) -> list[dict[str, Any]]:
    return list(rows.order_by(field).values(field).annotate(count=Count("pk")))
