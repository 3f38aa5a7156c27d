"""The users' admin pages, without the users that tests have made."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest

from stagehand_testdata.isolation.visibility import hide_test_data

admin.site.unregister(User)


@admin.register(User)
class RealUserAdmin(UserAdmin):
    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return hide_test_data(super().get_queryset(request))
