"""Ordinary factory_boy factories for the marketplace's models."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import factory
from django.contrib.auth import get_user_model
from django.utils import timezone

from .models import Booking, Builder, Client, SessionType


class UserFactory(factory.django.DjangoModelFactory[Any]):  # type: ignore[misc]
    """A user of whatever model the host has: nobody's mailbox, no password, no rights."""

    class Meta:
        model = get_user_model()
        exclude = ("name", "address")

    name = factory.Faker("name")
    address = factory.Sequence(lambda n: f"user{n}@example.com")

    @classmethod
    def _create(cls, model_class: type[Any], *args: Any, **kwargs: Any) -> Any:
        user = model_class(*args, **kwargs)
        user.set_unusable_password()
        user.save(force_insert=True)
        return user

    @classmethod
    def _adjust_kwargs(cls, **kwargs: Any) -> dict[str, Any]:
        model = get_user_model()
        names = {field.name: field for field in model._meta.concrete_fields}
        address, name = kwargs["address"], kwargs["name"]
        identity = {model.get_email_field_name(): address, model.USERNAME_FIELD: address}
        if "name" in names:
            identity["name"] = name
        elif "first_name" in names:
            identity["first_name"] = name
        for field, value in identity.items():
            if field in names:
                kwargs.setdefault(field, value[: names[field].max_length])
        return kwargs


class BuilderFactory(factory.django.DjangoModelFactory[Builder]):  # type: ignore[misc]
    class Meta:
        model = Builder

    display_name = factory.Faker("name")
    headline = factory.Faker("job")
    hourly_rate = Decimal(85)
    top_skills = factory.LazyFunction(lambda: ["React", "Node.js"])
    user = factory.SubFactory(UserFactory, name=factory.SelfAttribute("..display_name"))


class ClientFactory(factory.django.DjangoModelFactory[Client]):  # type: ignore[misc]
    class Meta:
        model = Client

    display_name = factory.Faker("name")
    user = factory.SubFactory(UserFactory, name=factory.SelfAttribute("..display_name"))


class SessionTypeFactory(factory.django.DjangoModelFactory[SessionType]):  # type: ignore[misc]
    class Meta:
        model = SessionType

    builder = factory.SubFactory(BuilderFactory)
    title = "Initial Consultation"
    duration_minutes = 60
    price = Decimal(75)
    currency = "USD"


class BookingFactory(factory.django.DjangoModelFactory[Booking]):  # type: ignore[misc]
    class Meta:
        model = Booking

    session_type = factory.SubFactory(SessionTypeFactory)
    builder = factory.Maybe(
        "session_type", factory.SelfAttribute("session_type.builder"), factory.SubFactory(BuilderFactory)
    )
    client = factory.SubFactory(UserFactory)
    title = factory.SelfAttribute("session_type.title", default=SessionTypeFactory.title)
    start_time = factory.LazyFunction(
        lambda: timezone.now().replace(minute=0, second=0, microsecond=0) + dt.timedelta(days=7)
    )
    end_time = factory.LazyAttribute(
        lambda booking: (
            booking.start_time + dt.timedelta(minutes=getattr(booking.session_type, "duration_minutes", 60))
        )
    )
    amount = factory.SelfAttribute("session_type.price", default=None)
    currency = factory.SelfAttribute("session_type.currency", default="USD")
