"""A few rows as a real product has them, made with the plain ORM."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone

from project.shop.models import Category, Product, Tag
from stagehand_testdata.marketplace.models import Booking, Builder, Client, SessionType

BUILDERS = [
    ("Ada Okafor", "Payments that reconcile", ["Django", "Stripe", "PostgreSQL"], 140, 3, "available"),
    ("Bruno Lindqvist", "Interfaces people can read", ["React", "TypeScript"], 95, 2, "available"),
    ("Chiara Mwangi", "From idea to first users", ["React", "Node.js", "Product"], 85, 2, "limited"),
    ("Dmitri Castellanos", "Data pipelines without drama", ["Python", "Airflow"], 120, 1, "available"),
    ("Elif Johansen", "Mobile apps that work offline", ["Flutter", "SQLite"], 110, 1, "unavailable"),
]
SESSIONS = [("Initial consultation", 60, Decimal(75)), ("Architecture review", 90, Decimal(120))]


@transaction.atomic
def seed() -> None:
    """Fill an empty marketplace and an empty shop."""
    users = get_user_model().objects
    for name, headline, skills, rate, tier, availability in BUILDERS:
        login = name.lower().replace(" ", ".")
        builder = Builder.objects.create(
            user=users.create_user(username=login, email=f"{login}@marketplace.example"),
            display_name=name,
            headline=headline,
            top_skills=skills,
            hourly_rate=Decimal(rate),
            validation_tier=tier,
            availability=availability,
            featured=tier == 3,
        )
        for title, minutes, price in SESSIONS:
            SessionType.objects.create(builder=builder, title=title, duration_minutes=minutes, price=price)
    client = users.create_user(username="farah.novak", email="farah.novak@marketplace.example")
    Client.objects.create(user=client, display_name="Farah Novak", company_name="Novak Bakeries")
    session = SessionType.objects.select_related("builder").earliest("pk")
    start = timezone.now().replace(hour=10, minute=0, second=0, microsecond=0) + dt.timedelta(days=3)
    Booking.objects.create(
        builder=session.builder,
        client=client,
        session_type=session,
        title=session.title,
        start_time=start,
        end_time=start + dt.timedelta(minutes=session.duration_minutes),
        status=Booking.Status.CONFIRMED,
        payment_status=Booking.PaymentStatus.PAID,
        amount=session.price,
    )
    _seed_shop()


def _seed_shop() -> None:
    category, tag = Category.objects.create(name="stationery"), Tag.objects.create(name="new")
    Category.objects.create(name="general")  # a real shelf, so that runs share it
    for sku, title, price in [("NB-A5", "Notebook, A5", "6.50"), ("PEN-02", "Drawing pen 0.2", "3.20")]:
        Product.objects.create(sku=sku, title=title, price=Decimal(price), category=category).tags.add(tag)
