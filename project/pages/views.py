"""The public pages: find a builder, look at one, book a session."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.core.signing import BadSignature, Signer
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from stagehand_testdata.marketplace.models import Availability, Booking, Builder

from . import listing, mail
from .forms import BookingForm, BuilderFilters

PAGE_SIZE = 12
# A confirmation is shown to whoever was redirected to it, not to whoever counts up booking numbers.
confirmations = Signer(salt="project.pages.booking")


@require_safe
def builders(request: HttpRequest) -> HttpResponse:
    """The listing with its filters."""
    form = BuilderFilters(request.GET, label_suffix="")
    paginator = Paginator(listing.builders(form.usable()), PAGE_SIZE)
    page = paginator.get_page(request.GET.get("page"))
    return render(request, "marketplace/builders.html", {"form": form, "page": page})


@require_http_methods(["GET", "HEAD", "POST"])
def builder(request: HttpRequest, pk: str) -> HttpResponse:
    """One builder, and the form that books a session with them."""
    found = get_object_or_404(Builder, pk=pk)
    bookable = found.available_for_hire and found.availability != Availability.UNAVAILABLE
    form = None
    if bookable:
        form = BookingForm(
            request.POST if request.method == "POST" else None, builder=found, user=request.user
        )
        if form.is_valid():
            booked = form.book()
            page = reverse("pages:booking", args=[confirmations.sign(str(booked.pk))])
            mail.confirm(booked, form.address, request.build_absolute_uri(page))
            return redirect(page)
    context = {"builder": found, "form": form, "session_types": found.session_types.filter(is_active=True)}
    return render(request, "marketplace/builder.html", context)


@require_safe
def booking(request: HttpRequest, token: str) -> HttpResponse:
    """What was booked, for the one who booked it."""
    try:
        pk = confirmations.unsign(token)
    except BadSignature:
        raise Http404 from None
    found = get_object_or_404(Booking.objects.select_related("builder", "session_type"), pk=pk)
    return render(request, "marketplace/booking.html", {"booking": found})
