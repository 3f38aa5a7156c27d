"""Ordinary admin pages for the marketplace's models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db import models

from .models import Booking, Builder, Client, SessionType

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin  # takes no type argument at run time

# Users are raw ids: whether the host's user admin can be searched is the host's affair.
# Django 5.2 warns where a URL field does not say what scheme it assumes.
URL_FIELDS: dict[type[models.Field[Any, Any]], dict[str, str]] = {models.URLField: {"assume_scheme": "https"}}


@admin.register(Builder)
class BuilderAdmin(ModelAdmin):
    list_display = [
        "display_name",
        "user",
        "hourly_rate",
        "availability",
        "validation_tier",
        "searchable",
        "featured",
        "created_at",
    ]
    list_filter = [
        "availability",
        "validation_tier",
        "searchable",
        "featured",
        "available_for_hire",
        "created_at",
    ]
    list_select_related = ["user"]
    search_fields = ["display_name", "headline", "slug"]
    raw_id_fields = ["user"]
    readonly_fields = ["created_at", "updated_at"]


@admin.register(Client)
class ClientAdmin(ModelAdmin):
    list_display = ["display_name", "user", "company_name", "industry", "created_at"]
    list_filter = ["created_at"]
    list_select_related = ["user"]
    search_fields = ["display_name", "company_name"]
    raw_id_fields = ["user"]
    readonly_fields = ["created_at"]


@admin.register(SessionType)
class SessionTypeAdmin(ModelAdmin):
    list_display = ["title", "builder", "duration_minutes", "price", "currency", "is_active", "display_order"]
    list_filter = ["is_active", "requires_auth", "currency"]
    list_select_related = ["builder"]
    search_fields = ["title", "builder__display_name"]
    autocomplete_fields = ["builder"]
    readonly_fields = ["created_at"]
    formfield_overrides = URL_FIELDS


@admin.register(Booking)
class BookingAdmin(ModelAdmin):
    list_display = [
        "title",
        "builder",
        "client",
        "start_time",
        "status",
        "payment_status",
        "amount",
        "currency",
    ]
    list_filter = ["status", "payment_status", "start_time"]
    list_select_related = ["builder", "client"]
    search_fields = ["title", "builder__display_name"]
    autocomplete_fields = ["builder", "session_type"]
    raw_id_fields = ["client"]
    readonly_fields = ["created_at"]
    formfield_overrides = URL_FIELDS
