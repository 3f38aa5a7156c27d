"""The public shop: products by shelf and word, and one of them."""

from __future__ import annotations

from typing import Any

from django.contrib.sitemaps import Sitemap
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, JsonResponse
from django.urls import reverse
from django.views.decorators.http import require_safe
from django.views.generic import DetailView, ListView

from .forms import ProductFilters
from .models import Category, Product, Tag


class ProductList(ListView):
    """The products, narrowed by the filters, and how many there are by shelf and word."""

    queryset = Product.objects.select_related("category").prefetch_related("tags")
    paginate_by = 12
    template_name = "shop/products.html"
    context_object_name = "products"

    def get_queryset(self) -> QuerySet[Product]:
        self.form = ProductFilters(self.request.GET, label_suffix="")
        filters, found = self.form.usable(), super().get_queryset()
        if words := filters.get("q"):
            found = found.filter(Q(title__icontains=words) | Q(sku__icontains=words))
        if category := filters.get("category"):
            found = found.filter(category=category)
        if tag := filters.get("tag"):
            found = found.filter(tags=tag)
        return found.order_by("-created_at", "sku") if filters.get("sort") == "newest" else found

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        # A join passes managers by, so it is said here which products count.
        counted = Count("products", filter=Q(products__in=Product.objects.all()))
        shelves, words = Category.objects.annotate(count=counted), Tag.objects.annotate(count=counted)
        return super().get_context_data(**kwargs, form=self.form, shelves=shelves, words=words)


class ProductDetail(DetailView):
    """One product, and what stands beside it."""

    queryset = Product.objects.select_related("category")
    pk_url_kwarg = "sku"
    template_name = "shop/product.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        product: Product = self.object
        beside = product.category.products.exclude(pk=product.pk)[:6]
        return super().get_context_data(**kwargs, beside=beside)


@require_safe
def products_json(request: HttpRequest) -> JsonResponse:
    """Every product, with its price."""
    return JsonResponse({"products": list(Product.objects.values("sku", "title", "price", "category__name"))})


class ProductSitemap(Sitemap):
    def items(self) -> QuerySet[Product]:
        return Product.objects.all()

    def location(self, item: Product) -> str:
        return reverse("shop:product", args=[item.pk])

    def lastmod(self, item: Product) -> Any:
        return item.created_at
