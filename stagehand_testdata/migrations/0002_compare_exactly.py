"""Test ids and keys compare byte by byte, on databases that fold case by default too."""

from typing import Any

from django.db import migrations

from stagehand_testdata.databases import database


def compare_exactly(apps: Any, schema_editor: Any) -> None:
    engine = database(schema_editor.connection.alias)
    for name, fields in (
        ("TestRun", ("owner", "test_id")),
        ("TestEntity", ("type", "model", "key_text")),
    ):
        engine.compare_exactly(schema_editor, apps.get_model("stagehand_testdata", name), fields)


class Migration(migrations.Migration):
    atomic = False  # MariaDB cannot change a table within a transaction
    dependencies = [("stagehand_testdata", "0001_initial")]
    operations = [migrations.RunPython(compare_exactly, migrations.RunPython.noop, elidable=False)]
