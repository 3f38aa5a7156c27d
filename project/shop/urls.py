from django.urls import path

from . import views

app_name = "shop"

urlpatterns = [
    path("", views.ProductList.as_view(), name="products"),
    path("products.json", views.products_json, name="products-json"),
    path("<str:sku>/", views.ProductDetail.as_view(), name="product"),
]
