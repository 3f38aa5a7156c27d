from django.urls import re_path

from . import views

app_name = "pages"

# No slash is needed at the end; eighteen digits are what a bigint surely holds.
urlpatterns = [
    re_path(r"^builders/?$", views.builders, name="builders"),
    re_path(r"^builders/(?P<pk>[0-9]{1,18})/?$", views.builder, name="builder"),
    re_path(r"^bookings/(?P<token>[0-9]{1,18}:[\w-]+)/?$", views.booking, name="booking"),
]
