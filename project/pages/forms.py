"""What visitors send: the listing's filters and a booking."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, cast

from django import forms
from django.utils import timezone

from stagehand_testdata.marketplace.models import Availability, Booking, Builder, SessionType

FURTHEST_START = dt.timedelta(days=366)


class BuilderFilters(forms.Form):
    """The listing's filters. One that makes no sense is left out, and the visitor told so."""

    q = forms.CharField(label="Search", max_length=100, required=False)
    skill = forms.CharField(max_length=100, required=False)
    min_rate = forms.DecimalField(
        label="Rate from", min_value=Decimal(0), max_digits=10, decimal_places=2, required=False
    )
    max_rate = forms.DecimalField(
        label="Rate to", min_value=Decimal(0), max_digits=10, decimal_places=2, required=False
    )
    tier = forms.TypedChoiceField(
        choices=[("", "Any"), *((tier, f"Tier {tier}") for tier in (1, 2, 3))],
        coerce=int,
        empty_value=None,
        required=False,
    )
    availability = forms.ChoiceField(choices=[("", "Any"), *Availability.choices], required=False)
    sort = forms.ChoiceField(
        label="Sort by",
        choices=[
            ("", "Featured"),
            ("name", "Name"),
            ("rate", "Rate, lowest first"),
            ("-rate", "Rate, highest first"),
            ("newest", "Newest"),
        ],
        required=False,
    )

    def usable(self) -> dict[str, Any]:
        """The filters that could be read, whatever was wrong with the others."""
        self.full_clean()
        return self.cleaned_data


class BookingForm(forms.Form):
    """One session with one builder. A visitor who is logged in is not asked who they are."""

    name = forms.CharField(
        label="Your name", max_length=200, widget=forms.TextInput({"autocomplete": "name"})
    )
    email = forms.EmailField(label="Your e-mail", widget=forms.EmailInput({"autocomplete": "email"}))
    session_type = forms.ModelChoiceField(
        SessionType.objects.none(), label="Session", empty_label="Choose a session"
    )
    start_time = forms.DateTimeField(
        label="Start (UTC)",
        widget=forms.DateTimeInput({"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )

    def __init__(self, *args: Any, builder: Builder, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.builder, self.user = builder, user if user.is_authenticated else None
        field = cast("forms.ModelChoiceField[SessionType]", self.fields["session_type"])
        field.queryset = builder.session_types.filter(is_active=True)
        if self.user:
            del self.fields["name"], self.fields["email"]

    def clean_start_time(self) -> dt.datetime:
        start: dt.datetime = self.cleaned_data["start_time"]
        now = timezone.now()
        if start <= now:
            raise forms.ValidationError("Choose a time in the future.")
        if start > now + FURTHEST_START:
            raise forms.ValidationError("Choose a time within the next year.")
        return start

    @property
    def address(self) -> str:
        """Where to write to whoever books; empty where an account has none."""
        return str(self.user.email if self.user else self.cleaned_data["email"])

    def book(self) -> Booking:
        """The booking as a pending one. Nobody is looked up by the e-mail given: anyone can type it."""
        session: SessionType = self.cleaned_data["session_type"]
        start: dt.datetime = self.cleaned_data["start_time"]
        contact = None if self.user else {key: self.cleaned_data[key] for key in ("name", "email")}
        return Booking.objects.create(
            builder=self.builder,
            client=self.user,
            session_type=session,
            title=session.title,
            start_time=start,
            end_time=start + dt.timedelta(minutes=session.duration_minutes),
            amount=session.price,
            currency=session.currency,
            client_timezone="UTC",
            state_data=contact and {"contact": contact},
        )
