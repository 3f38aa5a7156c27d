from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin

from .models import Category, Product, Tag

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin  # takes no type argument at run time


@admin.register(Category, Tag)
class NameAdmin(ModelAdmin):
    list_display = ["name"]
    search_fields = ["name"]


@admin.register(Product)
class ProductAdmin(ModelAdmin):
    list_display = ["sku", "title", "price", "category", "created_at"]
    list_filter = ["category", "tags", "created_at"]
    list_select_related = ["category"]
    search_fields = ["sku", "title"]
    autocomplete_fields = ["category", "tags"]
