from django.apps import AppConfig


class WagtailHostConfig(AppConfig):
    name = "tests.wagtail_host"
    label = "wagtail_host"
    default_auto_field = "django.db.models.BigAutoField"
