"""The strategy document's operations on the marketplace, made from the same parts that any host has.

Every function takes the creating call and the validated body. None of them imports a factory.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import cycle, islice
from typing import Any

from ..exceptions import InvalidInput
from ..models import TestRun
from ..operations.entities import Creation, entries_by_type, plain
from .models import Availability, Booking, Builder, Client, SessionType

Body = Mapping[str, Any]

DEFAULT_SESSION = {"name": "Initial Consultation", "duration": 60, "price": Decimal(75)}
DEFAULT_EXPERTISE = ["React", "Node.js"]
DEFAULT_RATE = Decimal(85)
DEFAULT_CURRENCY = "USD"


# --- operations ------------------------------------------------------------------------------------------


def create_builder(call: Creation, data: Body) -> dict[str, Any]:
    builder = make_builder(call, data)
    answer = represent_builder(builder, call.run)
    return {**answer, "availability": data.get("availability", True)}


def create_client(call: Creation, data: Body) -> dict[str, Any]:
    return represent_client(make_client(call, data), call.run)


def create_session_types(call: Creation, data: Body) -> list[dict[str, Any]]:
    builder = call.find("builder", data["builderId"], "builderId")
    made = [make_session_type(call, builder, each) for each in data.get("sessionTypes") or [{}]]
    return [represent_session_type(each, call.run) for each in made]


def create_booking_scenario(call: Creation, data: Body) -> dict[str, Any]:
    booking, rows = _book(call, data)
    shown = represent_booking(booking, call.run)
    kept = ("id", "testId", "status", "paymentStatus", "startTime", "endTime", "amount", "currency", "isTest")
    entities = {
        "builder": [represent_builder(rows["builder"], call.run)],
        "sessionType": [represent_session_type(rows["sessionType"], call.run)],
        "client": [represent_client(rows["client"], call.run)],
        "booking": [shown],
    }
    return {**{name: shown[name] for name in kept}, "entities": entities}


# --- presets ---------------------------------------------------------------------------------------------


def marketplace_preset(call: Creation, data: Body) -> None:
    for _ in range(3):
        builder = make_builder(call, {})
        make_session_type(call, builder, {})
        make_session_type(call, builder, {"name": "Deep Dive", "duration": 90, "price": Decimal(120)})


def booking_preset(call: Creation, data: Body) -> dict[str, Any]:
    booking, rows = _book(call, data)
    make_session_type(call, rows["builder"], {"name": "Deep Dive", "duration": 90, "price": Decimal(120)})
    return {"id": str(booking.pk), "entities": entries_by_type(call)}


def payment_preset(call: Creation, data: Body) -> dict[str, Any]:
    booking, _ = _book(call, {"amount": Decimal(85), **data})
    return {"id": str(booking.pk), "entities": entries_by_type(call)}


# --- batches ---------------------------------------------------------------------------------------------


def make_builders(call: Creation, count: int | None) -> list[Builder]:
    return [make_builder(call, {}) for _ in range(1 if count is None else count)]


def make_clients(call: Creation, count: int | None) -> list[Client]:
    return [make_client(call, {}) for _ in range(1 if count is None else count)]


def make_session_types(call: Creation, count: int | None) -> list[SessionType]:
    """`true`: one for each builder of the batch; a number: that many, spread over them."""
    if count == 0:
        return []
    builders = call.instances("builder") or [make_builder(call, {})]
    wanted = len(builders) if count is None else count
    return [make_session_type(call, builder, {}) for builder in islice(cycle(builders), wanted)]


def make_bookings(call: Creation, count: int | None) -> list[Booking]:
    """Between the batch's own builders and clients, in turn."""
    clients: Sequence[Client | None] = call.instances("client") or [None]
    sessions: Sequence[SessionType | None] = call.instances("sessionType") or [None]
    builders: Sequence[Builder | None] = call.instances("builder") or [None]
    wanted = 1 if count is None else count
    made = []
    for client, session, builder in islice(
        zip(cycle(clients), cycle(sessions), cycle(builders), strict=True), wanted
    ):
        booking, _ = _book(
            call, {}, builder=session.builder if session else builder, session=session, client=client
        )
        made.append(booking)
    return made


# --- rows ------------------------------------------------------------------------------------------------


def make_builder(call: Creation, data: Body) -> Builder:
    name = call.name(data.get("name") or f"Test Builder {call.number}")
    availability = data.get("availability", True)
    state = _availability_state(availability)
    builder: Builder = call.create(
        "builder",
        display_name=name,
        top_skills=list(data.get("expertise", DEFAULT_EXPERTISE)),
        hourly_rate=data.get("hourlyRate", DEFAULT_RATE),
        availability=state,
        available_for_hire=state != Availability.UNAVAILABLE,
        validation_tier=data.get("validationTier", 1),
        user__address=call.addresses.claim(data.get("email")),
        **{field: data[field] for field in ("headline", "bio") if field in data},
    )
    return builder


def make_client(call: Creation, data: Body) -> Client:
    client: Client = call.create(
        "client",
        display_name=call.name(data.get("name") or f"Test Client {call.number}"),
        company_name=data.get("companyName", ""),
        user__address=call.addresses.claim(data.get("email"), "_client"),
    )
    return client


def make_session_type(call: Creation, builder: Builder, data: Body) -> SessionType:
    session: SessionType = call.create(
        "sessionType",
        builder=builder,
        title=call.name(data.get("name") or str(DEFAULT_SESSION["name"])),
        description=data.get("description", ""),
        duration_minutes=data.get("duration", DEFAULT_SESSION["duration"]),
        price=data.get("price", DEFAULT_SESSION["price"]),
        currency=data.get("currency", DEFAULT_CURRENCY),
        calendly_event_type_uri=data.get("calendlyUrl", ""),
    )
    return session


def _book(
    call: Creation,
    data: Body,
    *,
    builder: Builder | None = None,
    session: SessionType | None = None,
    client: Client | None = None,
) -> tuple[Booking, dict[str, Any]]:
    """A booking, and the rows that it joins: those named in the body, those given, or new ones."""
    if "sessionTypeId" in data:
        session = call.find("sessionType", data["sessionTypeId"], "sessionTypeId")
    if "builderId" in data:
        builder = call.find("builder", data["builderId"], "builderId")
        if session is not None and session.builder_id != builder.pk:
            message = "This session type belongs to another builder."
            raise InvalidInput(message, details={"sessionTypeId": [message]})
    if "clientId" in data:
        client = call.find("client", data["clientId"], "clientId")
    if builder is None:
        builder = session.builder if session is not None else make_builder(call, {})
    session = session or make_session_type(call, builder, {})
    client = client or make_client(call, {})
    start = data.get("startTime") or _default_start(call)
    booking: Booking = call.create(
        "booking",
        builder=builder,
        session_type=session,
        client=client.user,
        title=session.title,
        start_time=start,
        end_time=start + dt.timedelta(minutes=session.duration_minutes),
        status=data.get("status", Booking.Status.PENDING),
        payment_status=data.get("paymentStatus", Booking.PaymentStatus.PENDING),
        amount=data.get("amount", session.price),
        currency=data.get("currency", session.currency),
    )
    return booking, {"builder": builder, "sessionType": session, "client": client}


def _default_start(call: Creation) -> dt.datetime:
    """A week after the run was opened, at an hour of its own: in the future, and the same in a replay."""
    day = call.run.opened_at.replace(hour=10, minute=0, second=0, microsecond=0)
    return day + dt.timedelta(days=7, hours=call.number % 8)


def _availability_state(availability: bool | str) -> str:
    if isinstance(availability, str):
        return availability
    return Availability.AVAILABLE if availability else Availability.UNAVAILABLE


# --- answers ---------------------------------------------------------------------------------------------


def represent_builder(builder: Builder, run: TestRun) -> dict[str, Any]:
    return {
        "id": str(builder.pk),
        "testId": run.test_id,
        "name": builder.display_name,
        "email": _address(builder.user),
        "userId": str(builder.user_id),
        "expertise": _texts(builder.top_skills),
        "hourlyRate": _number(builder.hourly_rate),
        "availability": str(builder.availability),
        "validationTier": builder.validation_tier,
        "headline": builder.headline,
        "bio": builder.bio,
        "isTest": True,
        "createdAt": plain(builder.created_at),
        "expiresAt": plain(run.expires_at),
    }


def represent_client(client: Client, run: TestRun) -> dict[str, Any]:
    return {
        "id": str(client.pk),
        "testId": run.test_id,
        "name": client.display_name,
        "email": _address(client.user),
        "userId": str(client.user_id),
        "companyName": client.company_name,
        "isTest": True,
        "createdAt": plain(client.created_at),
        "expiresAt": plain(run.expires_at),
    }


def represent_session_type(session: SessionType, run: TestRun) -> dict[str, Any]:
    return {
        "id": str(session.pk),
        "testId": run.test_id,
        "builderId": str(session.builder_id),
        "name": session.title,
        "description": session.description,
        "duration": session.duration_minutes,
        "price": _number(session.price),
        "currency": session.currency,
        "calendlyUrl": session.calendly_event_type_uri,
        "isTest": True,
        "createdAt": plain(session.created_at),
    }


def represent_booking(booking: Booking, run: TestRun) -> dict[str, Any]:
    client = getattr(booking.client, "marketplace_client", None)
    return {
        "id": str(booking.pk),
        "testId": run.test_id,
        "builderId": str(booking.builder_id),
        "clientId": str(client.pk) if client is not None else None,
        "sessionTypeId": str(booking.session_type_id) if booking.session_type_id else None,
        "status": str(booking.status),
        "paymentStatus": str(booking.payment_status),
        "startTime": plain(booking.start_time),
        "endTime": plain(booking.end_time),
        "amount": _number(booking.amount),
        "currency": booking.currency,
        "isTest": True,
        "createdAt": plain(booking.created_at),
    }


def _address(user: Any) -> str:
    return str(getattr(user, user.get_email_field_name(), ""))


def _texts(value: Any) -> list[str]:
    """The column takes any JSON; the wire promises a list of texts."""
    return [str(each) for each in value] if isinstance(value, list) else []


def _number(value: Decimal | int | None) -> float | int | None:
    if value is None:
        return None
    number = float(value)
    return int(number) if number.is_integer() else number
