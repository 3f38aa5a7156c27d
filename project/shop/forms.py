"""What visitors send: the shop's filters."""

from __future__ import annotations

from typing import Any

from django import forms

from .models import Category, Tag


class ProductFilters(forms.Form):
    """One that makes no sense is left out."""

    q = forms.CharField(label="Search", max_length=100, required=False)
    category = forms.ModelChoiceField(
        Category.objects.all(), label="Shelf", to_field_name="name", empty_label="Any", required=False
    )
    tag = forms.ModelChoiceField(Tag.objects.all(), to_field_name="name", empty_label="Any", required=False)
    sort = forms.ChoiceField(label="Sort by", choices=[("", "Title"), ("newest", "Newest")], required=False)

    def usable(self) -> dict[str, Any]:
        """The filters that could be read, whatever was wrong with the others."""
        self.full_clean()
        return self.cleaned_data
