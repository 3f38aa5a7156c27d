"""A marketplace where clients book sessions with app builders. Real users do not see its test rows."""

from __future__ import annotations

from decimal import Decimal

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q

from ..isolation.visibility import TestDataManager, TestDataModel


class Availability(models.TextChoices):
    AVAILABLE = "available"
    LIMITED = "limited"
    UNAVAILABLE = "unavailable"


class BuilderQuerySet(models.QuerySet["Builder"]):
    def listed(self) -> BuilderQuerySet:
        """Those that the public listing shows."""
        return self.filter(searchable=True)


class Builder(TestDataModel):
    """A person who offers sessions. The public page's id is the primary key."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="marketplace_builder"
    )
    display_name = models.CharField(max_length=200)
    slug = models.SlugField(max_length=200, unique=True, null=True, blank=True)
    headline = models.CharField(max_length=200, blank=True, default="")
    tagline = models.CharField(max_length=200, blank=True, default="")
    bio = models.TextField(blank=True, default="")
    hourly_rate = models.DecimalField(
        max_digits=10, decimal_places=2, null=True, blank=True, validators=[MinValueValidator(Decimal(0))]
    )
    top_skills = models.JSONField(default=list, blank=True)
    expertise_areas = models.JSONField(null=True, blank=True)
    availability = models.CharField(
        max_length=12, choices=Availability.choices, default=Availability.AVAILABLE
    )
    available_for_hire = models.BooleanField(default=True)
    validation_tier = models.PositiveSmallIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(3)]
    )
    rating = models.DecimalField(max_digits=3, decimal_places=2, null=True, blank=True)
    completed_projects = models.PositiveIntegerField(default=0)
    searchable = models.BooleanField(default=True)
    featured = models.BooleanField(default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = TestDataManager.from_queryset(BuilderQuerySet)()

    class Meta(TestDataModel.Meta):
        ordering = ["-featured", "display_name", "pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(validation_tier__gte=1, validation_tier__lte=3), name="marketplace_builder_tier"
            ),
        ]

    def __str__(self) -> str:
        return self.display_name


class Client(TestDataModel):
    """A person who books sessions."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="marketplace_client"
    )
    display_name = models.CharField(max_length=200)
    company_name = models.CharField(max_length=200, blank=True, default="")
    industry = models.CharField(max_length=100, blank=True, default="")
    project_preferences = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(TestDataModel.Meta):
        ordering = ["display_name", "pk"]

    def __str__(self) -> str:
        return self.display_name


class SessionType(TestDataModel):
    """Something that a builder offers: a length and a price."""

    builder = models.ForeignKey(Builder, on_delete=models.CASCADE, related_name="session_types")
    title = models.CharField(max_length=200)
    description = models.TextField(blank=True, default="")
    duration_minutes = models.PositiveIntegerField(default=60, validators=[MinValueValidator(15)])
    price = models.DecimalField(max_digits=10, decimal_places=2, validators=[MinValueValidator(Decimal(0))])
    currency = models.CharField(max_length=3, default="USD")
    is_active = models.BooleanField(default=True)
    max_participants = models.PositiveIntegerField(null=True, blank=True)
    requires_auth = models.BooleanField(default=True)
    display_order = models.PositiveIntegerField(default=999)
    calendly_event_type_id = models.CharField(max_length=200, blank=True, default="")
    calendly_event_type_uri = models.URLField(max_length=500, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(TestDataModel.Meta):
        ordering = ["display_order", "pk"]
        constraints = [
            models.CheckConstraint(condition=Q(price__gte=0), name="marketplace_session_price"),
        ]

    def __str__(self) -> str:
        return self.title


class Booking(TestDataModel):
    """A session that a client has booked with a builder."""

    class Status(models.TextChoices):
        PENDING = "PENDING"
        CONFIRMED = "CONFIRMED"
        CANCELLED = "CANCELLED"
        COMPLETED = "COMPLETED"

    class PaymentStatus(models.TextChoices):
        UNPAID = "UNPAID"
        PENDING = "PENDING"
        PAID = "PAID"
        FAILED = "FAILED"
        REFUNDED = "REFUNDED"
        CANCELLED = "CANCELLED"

    builder = models.ForeignKey(Builder, on_delete=models.CASCADE, related_name="bookings")
    client = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="marketplace_bookings",
    )
    session_type = models.ForeignKey(
        SessionType, on_delete=models.SET_NULL, null=True, blank=True, related_name="bookings"
    )
    title = models.CharField(max_length=200)
    description = models.TextField(blank=True, default="")
    start_time = models.DateTimeField()
    end_time = models.DateTimeField()
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.PENDING)
    payment_status = models.CharField(
        max_length=12, choices=PaymentStatus.choices, default=PaymentStatus.UNPAID
    )
    amount = models.DecimalField(max_digits=10, decimal_places=2, null=True, blank=True)
    currency = models.CharField(max_length=3, default="USD")
    client_timezone = models.CharField(max_length=64, blank=True, default="")
    builder_timezone = models.CharField(max_length=64, blank=True, default="")
    calendly_event_uri = models.URLField(max_length=500, blank=True, default="")
    stripe_session_id = models.CharField(max_length=200, blank=True, default="")
    current_state = models.CharField(max_length=50, blank=True, default="")
    state_data = models.JSONField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(TestDataModel.Meta):
        ordering = ["-start_time", "pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(end_time__gt=F("start_time")), name="marketplace_booking_ends"
            ),
        ]

    def __str__(self) -> str:
        return self.title
