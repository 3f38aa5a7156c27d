"""A host's task backends as the docs write them."""

from __future__ import annotations

try:
    from django.tasks.backends.immediate import ImmediateBackend
except ModuleNotFoundError:
    from django_tasks.backends.immediate import ImmediateBackend

from stagehand_testdata.contrib.task_backend import CarriesRuns


class Immediate(CarriesRuns, ImmediateBackend):
    pass


try:
    from django_tasks_db import DatabaseBackend
except ModuleNotFoundError:
    pass
else:

    class Database(CarriesRuns, DatabaseBackend):
        pass
