"""The composition root: what the host's start-up pays for, which is nothing but the checks."""

from django.apps import AppConfig


class StagehandTestdataConfig(AppConfig):
    name = "stagehand_testdata"
    label = "stagehand_testdata"
    verbose_name = "Test data"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401 - registers them
