"""The marketplace on the wire, in the strategy document's words."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.core.validators import RegexValidator
from rest_framework import serializers

from ..api.fields import AlwaysTrue, Amount, Identifier, Line, Text, Whole
from ..api.openapi import shaped
from ..api.serializers import CreatedSerializer, FrameSerializer, StrictSerializer
from .models import Availability, Booking

_FIRST_START = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_LAST_START = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)

#: Names are kept in columns of 150 characters (Django's first_name) and carry the test prefix.
_NAME_LENGTH = 120


@shaped({"oneOf": [{"type": "boolean"}, {"type": "string", "enum": Availability.values}]})
class AvailabilityField(serializers.JSONField):
    """true, false, or 'available', 'limited', 'unavailable'; given back as it was sent."""

    default_error_messages = {"invalid": "true, false, 'available', 'limited' or 'unavailable'."}

    def to_internal_value(self, data: Any) -> bool | str:  # type: ignore[override]
        if not isinstance(data, bool) and not (isinstance(data, str) and data in Availability.values):
            self.fail("invalid")
        return data


class CurrencyField(Text):
    """Three letters, as in ISO 4217."""

    default_validators = [RegexValidator(r"^[A-Za-z]{3}\Z", "Three letters, as in ISO 4217.")]

    def to_internal_value(self, data: Any) -> str:
        return super().to_internal_value(data).upper()


class BuilderRequest(FrameSerializer):
    name = Line(required=False, max_length=_NAME_LENGTH)
    email = Text(required=False, max_length=254)
    expertise = serializers.ListField(child=Line(max_length=100), required=False, max_length=50)
    hourlyRate = Amount(required=False)
    availability = AvailabilityField(required=False)
    validationTier = Whole(required=False, min_value=1, max_value=3)
    headline = Line(required=False, allow_blank=True, max_length=200)
    bio = Text(required=False, allow_blank=True, max_length=5000)


class ClientRequest(FrameSerializer):
    name = Line(required=False, max_length=_NAME_LENGTH)
    email = Text(required=False, max_length=254)
    companyName = Line(required=False, allow_blank=True, max_length=200)


class SessionTypeItem(StrictSerializer):
    name = Line(required=False, max_length=_NAME_LENGTH)
    description = Text(required=False, allow_blank=True, max_length=5000)
    duration = Whole(required=False, min_value=15, max_value=24 * 60, help_text="Minutes.")
    price = Amount(required=False)
    currency = CurrencyField(required=False)
    calendlyUrl = serializers.URLField(required=False, allow_blank=True, max_length=500)
    isTest = AlwaysTrue(required=False)


class SessionTypesRequest(FrameSerializer):
    builderId = Identifier()
    sessionTypes = SessionTypeItem(many=True, required=False, max_length=100)  # type: ignore[call-arg]


class BookingRequest(FrameSerializer):
    status = serializers.ChoiceField(choices=Booking.Status.choices, required=False)
    paymentStatus = serializers.ChoiceField(choices=Booking.PaymentStatus.choices, required=False)
    builderId = Identifier(required=False)
    clientId = Identifier(required=False)
    sessionTypeId = Identifier(required=False)
    startTime = serializers.DateTimeField(required=False)
    amount = Amount(required=False)
    currency = CurrencyField(required=False)

    def validate_startTime(self, value: dt.datetime) -> dt.datetime:
        if not _FIRST_START <= value <= _LAST_START:
            raise serializers.ValidationError("Between the years 2000 and 2100.")
        return value


class BuilderAnswer(CreatedSerializer):
    id = serializers.CharField()
    testId = serializers.CharField()
    name = serializers.CharField()
    email = serializers.CharField()
    userId = serializers.CharField(help_text="The account: whom to sign in.")
    expertise = serializers.ListField(child=serializers.CharField())
    hourlyRate = serializers.FloatField(allow_null=True)
    availability = serializers.JSONField(help_text="As it was sent: a boolean or a text.")
    validationTier = serializers.IntegerField()
    headline = serializers.CharField(allow_blank=True)
    bio = serializers.CharField(allow_blank=True)
    isTest = serializers.BooleanField()
    createdAt = serializers.DateTimeField()
    expiresAt = serializers.DateTimeField()


class ClientAnswer(CreatedSerializer):
    id = serializers.CharField()
    testId = serializers.CharField()
    name = serializers.CharField()
    email = serializers.CharField()
    userId = serializers.CharField(help_text="The account: whom to sign in.")
    companyName = serializers.CharField(allow_blank=True)
    isTest = serializers.BooleanField()
    createdAt = serializers.DateTimeField()
    expiresAt = serializers.DateTimeField()


class SessionTypeAnswer(CreatedSerializer):
    id = serializers.CharField()
    testId = serializers.CharField()
    builderId = serializers.CharField()
    name = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    duration = serializers.IntegerField(help_text="Minutes.")
    price = serializers.FloatField()
    currency = serializers.CharField()
    calendlyUrl = serializers.CharField(allow_blank=True)
    isTest = serializers.BooleanField()
    createdAt = serializers.DateTimeField()


class BookingEntity(serializers.Serializer[Any]):
    id = serializers.CharField()
    testId = serializers.CharField()
    builderId = serializers.CharField()
    clientId = serializers.CharField(allow_null=True)
    sessionTypeId = serializers.CharField(allow_null=True)
    status = serializers.ChoiceField(choices=Booking.Status.choices)
    paymentStatus = serializers.ChoiceField(choices=Booking.PaymentStatus.choices)
    startTime = serializers.DateTimeField()
    endTime = serializers.DateTimeField()
    amount = serializers.FloatField(allow_null=True)
    currency = serializers.CharField()
    isTest = serializers.BooleanField()
    createdAt = serializers.DateTimeField()


class ScenarioEntities(serializers.Serializer[Any]):
    builder = BuilderAnswer(many=True)
    sessionType = SessionTypeAnswer(many=True)
    client = ClientAnswer(many=True)
    booking = BookingEntity(many=True)


class BookingScenarioAnswer(CreatedSerializer):
    id = serializers.CharField()
    testId = serializers.CharField()
    status = serializers.ChoiceField(choices=Booking.Status.choices)
    paymentStatus = serializers.ChoiceField(choices=Booking.PaymentStatus.choices)
    startTime = serializers.DateTimeField()
    endTime = serializers.DateTimeField()
    amount = serializers.FloatField(allow_null=True)
    currency = serializers.CharField()
    isTest = serializers.BooleanField()
    entities = ScenarioEntities()
