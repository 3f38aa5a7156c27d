"""The shop's own factories, as its unit tests use them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import factory

from .models import Category, Product, Tag


class CategoryFactory(factory.django.DjangoModelFactory[Category]):
    class Meta:
        model = Category
        django_get_or_create = ("name",)

    name = "general"


class TagFactory(factory.django.DjangoModelFactory[Tag]):
    class Meta:
        model = Tag
        django_get_or_create = ("name",)

    name = "new"


class ProductFactory(factory.django.DjangoModelFactory[Product]):
    class Meta:
        model = Product
        skip_postgeneration_save = True

    sku = factory.Sequence(lambda n: f"SKU-{n:06d}")
    title = factory.Faker("catch_phrase")
    price = Decimal("19.90")
    category = factory.SubFactory(CategoryFactory)

    @factory.post_generation
    def tags(self, create: bool, extracted: list[Tag] | None, **kwargs: Any) -> None:
        """One tag, or those given; none at all where the product is only built."""
        if create:
            self.tags.add(*([TagFactory(**kwargs)] if extracted is None else extracted))
