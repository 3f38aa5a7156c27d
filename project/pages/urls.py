from django.urls import path, re_path

from . import exports, views

app_name = "pages"

# No slash is needed at the end; eighteen digits are what a bigint surely holds.
urlpatterns = [
    re_path(r"^builders/?$", views.builders, name="builders"),
    re_path(r"^builders/(?P<pk>[0-9]{1,18})/?$", views.builder, name="builder"),
    re_path(r"^bookings/(?P<token>[0-9]{1,18}:[\w-]+)/?$", views.booking, name="booking"),
    path("builders.csv", exports.builders_csv, name="builders-csv"),
    path("builders.json", exports.builders_json, name="builders-json"),
    path("builders.atom", exports.NewestBuilders(), name="builders-feed"),
    path("figures.json", exports.figures, name="figures"),
]
