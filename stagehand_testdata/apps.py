"""The composition root: what the host's start-up pays for, which is the checks and four receivers."""

from typing import Any

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in
from django.db.models.signals import post_migrate, pre_migrate


class StagehandTestdataConfig(AppConfig):
    name = "stagehand_testdata"
    label = "stagehand_testdata"
    verbose_name = "Test data"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401 - registers them
        from .access.sessions import note_login
        from .isolation.statements import name_statements

        pre_migrate.connect(lift_guards, sender=self)
        post_migrate.connect(renew_guards, sender=self)
        user_logged_in.connect(note_login, dispatch_uid="stagehand_testdata.note_login")
        name_statements()


def lift_guards(using: str, plan: Any, **kwargs: Any) -> None:
    from .isolation.statements import see_all_rows_from_now_on
    from .operations import guards

    guards.before_migrate(using, plan)
    see_all_rows_from_now_on()


def renew_guards(using: str, **kwargs: Any) -> None:
    from .isolation.statements import hide_rows_again
    from .operations import guards

    guards.after_migrate(using)
    hide_rows_again()
