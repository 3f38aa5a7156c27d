"""A shop's catalogue: a natural primary key, a protected foreign key, a many-to-many relation.

Its tables stay as they are: the managers ask the ledger whose rows they are.
"""

from __future__ import annotations

from decimal import Decimal

from django.core.validators import MinValueValidator
from django.db import models

from stagehand_testdata.isolation.visibility import TestDataManager


class Category(models.Model):
    """A shelf: every product stands on exactly one."""

    name = models.SlugField(max_length=100, unique=True)

    objects = TestDataManager()

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "categories"

    def __str__(self) -> str:
        return self.name


class Tag(models.Model):
    """A word that products share."""

    name = models.CharField(max_length=50, unique=True)

    objects = TestDataManager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class Product(models.Model):
    """Something for sale, known by its stock-keeping unit."""

    sku = models.CharField("SKU", max_length=64, primary_key=True)
    title = models.CharField(max_length=200)
    price = models.DecimalField(max_digits=10, decimal_places=2, validators=[MinValueValidator(Decimal(0))])
    category = models.ForeignKey(Category, on_delete=models.PROTECT, related_name="products")
    tags = models.ManyToManyField(Tag, blank=True, related_name="products")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = TestDataManager()

    class Meta:
        ordering = ["title", "sku"]

    def __str__(self) -> str:
        return self.title
