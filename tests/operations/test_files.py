"""Files that saving a row puts into storage: entered with the row, removed after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from stagehand_testdata.exceptions import Conflict, FactoryFailed, UntrackedWrite
from stagehand_testdata.models import TestEntity
from stagehand_testdata.operations import entities, runs
from stagehand_testdata.operations.externals import FileHandler, remove_externals
from tests.making import TEST_ID, create, owned, perform, registered
from tests.outside import factories
from tests.outside.models import Contract, Document, Picture, archive

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _storages(media: Path) -> Iterator[None]:
    yield
    for name in archive.listdir("")[1]:
        archive.delete(name)


def stored(media: Path) -> list[str]:
    return sorted(path.relative_to(media).as_posix() for path in media.rglob("*") if path.is_file())


def archived() -> list[str]:
    return sorted(archive.listdir("")[1])


def put(name: str, data: bytes = b"real") -> str:
    """A file that nobody here has made."""
    storage = Document._meta.get_field("file").storage  # type: ignore[union-attr]
    kept: str = storage.save(name, ContentFile(data))
    return kept


def files(test_id: str = TEST_ID) -> list[TestEntity]:
    return list(TestEntity.objects.filter(run__test_id=test_id, model="external.file"))


def remove(test_id: str = TEST_ID) -> tuple[dict[str, int], list[tuple[str, dict[str, int]]]]:
    removed, held = remove_externals(runs.find(test_id, ""), sleep=lambda seconds: None)
    return dict(removed), [(each.reason, dict(each.blocked_by)) for each in held]


def take_away(model: Any = Document) -> None:
    """Remove rows as a purge does: without a signal."""
    model.objects.all()._raw_delete("default")


class TestEntering:
    def test_a_file_that_came_with_a_row_is_entered_beside_it(self, media: Path) -> None:
        document = create(factories.DocumentFactory)
        [entry] = files()
        assert stored(media) == [document.file.name] == ["documents/paper.txt"]
        assert entry.key_text == "outside.document.file:documents/paper.txt"
        assert entry.reference == "documents/paper.txt"
        assert (entry.type, entry.origin, entry.state, entry.reason) == ("file", "external", "live", "")
        assert owned() == ["external.file", "outside.document"]

    def test_the_name_is_the_one_that_the_storage_gave(self, media: Path) -> None:
        real = put("documents/paper.txt")
        document = create(factories.DocumentFactory)
        assert document.file.name != real
        assert [entry.reference for entry in files()] == [document.file.name]

    def test_two_runs_that_upload_the_same_name_have_a_file_each(self, media: Path) -> None:
        create(factories.DocumentFactory)
        create(factories.DocumentFactory, "stagehand_test_other")
        [one], [other] = files(), files("stagehand_test_other")
        assert one.reference != other.reference
        assert stored(media) == sorted([one.reference, other.reference])

    def test_pictures_parents_and_other_storages_count_too(self, media: Path) -> None:
        create(factories.PictureFactory)
        create(factories.ContractFactory)
        create(factories.ArchivedFactory)
        assert sorted(entry.key_text.partition(":")[0] for entry in files()) == [
            "outside.contract.signature",
            "outside.document.file",
            "outside.document.scan",
            "outside.picture.image",
        ]
        assert len(stored(media)) == 3
        assert archived() == ["scan.txt"]

    def test_files_of_rows_that_were_made_in_bulk_are_entered(self, media: Path) -> None:
        def work(call: entities.Creation) -> None:
            rows = [Document(title=f"{n}", file=ContentFile(b"x", name="bulk.txt")) for n in range(3)]
            Document.objects.bulk_create(rows)

        perform(work)
        assert sorted(entry.reference for entry in files()) == stored(media)
        assert len(stored(media)) == 3

    def test_a_file_that_a_row_only_names_is_not_ours(self, media: Path) -> None:
        put("documents/real.txt")
        create(factories.NamingFactory)
        assert not files()
        remove()
        assert stored(media) == ["documents/real.txt"]

    def test_a_row_without_a_file_enters_none(self, media: Path) -> None:
        create(factories.DocumentFactory, file=None)
        assert not files()

    def test_a_file_of_a_row_that_was_rolled_back_to_a_savepoint_is_entered_all_the_same(
        self, media: Path
    ) -> None:
        def work(call: entities.Creation) -> None:
            with pytest.raises(RuntimeError), transaction.atomic():
                Document.objects.create(title="a", file=ContentFile(b"x", name="lost.txt"))
                raise RuntimeError

        perform(work)
        assert owned() == ["external.file"]
        assert stored(media) == ["documents/lost.txt"]
        assert remove() == ({"file": 1}, [])
        assert not stored(media)

    def test_ordinary_traffic_is_not_watched(self, media: Path) -> None:
        Document.objects.create(title="real", file=ContentFile(b"x", name="real.txt"))
        assert not TestEntity.objects.exists()


class TestACallThatFails:
    def test_takes_its_files_back(self, media: Path) -> None:
        with pytest.raises(FactoryFailed):
            create(factories.FailingFactory)
        assert not stored(media)
        assert not files()

    def test_takes_back_the_file_of_the_row_that_the_database_refused(
        self, media: Path, monkeypatch: Any
    ) -> None:
        real = Document.objects.create(title="real")

        def work(call: entities.Creation) -> None:
            Document.objects.create(pk=real.pk, title="a", file=ContentFile(b"x", name="refused.txt"))

        with pytest.raises(Conflict):
            perform(work)
        assert not stored(media)

    def test_an_attempt_that_starts_over_leaves_the_file_of_the_last_one(self, media: Path) -> None:
        attempts: list[int] = []

        def work(call: entities.Creation) -> None:
            attempts.append(1)
            call.create("thing")
            if len(attempts) < 3:
                raise IntegrityError

        with registered(thing=factories.DocumentFactory):
            perform(work)
        assert len(attempts) == 3
        assert stored(media) == [entry.reference for entry in files()] == ["documents/paper.txt"]

    def test_a_name_too_long_for_the_ledger_fails_and_leaves_nothing(self, media: Path) -> None:
        with pytest.raises(UntrackedWrite, match="too long"):
            create(factories.ArchivedFactory, scan__filename="n" * 240)
        assert not archived()
        assert not Document.objects.exists()

    def test_keeps_a_file_that_a_real_row_names(self, media: Path) -> None:
        def work(call: entities.Creation) -> None:
            document = call.create("thing")
            shared.append(document.file.name)
            raise RuntimeError

        shared: list[str] = []
        Document.objects.create(title="real", file="documents/paper.txt")
        with registered(thing=factories.DocumentFactory), pytest.raises(FactoryFailed):
            perform(work)
        assert shared == ["documents/paper.txt"]
        assert stored(media) == ["documents/paper.txt"]

    def test_a_storage_that_does_not_delete_is_logged_and_the_failure_stays_the_failure(
        self, media: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(self: Any, name: str) -> None:
            raise OSError("read-only")

        monkeypatch.setattr(FileSystemStorage, "delete", fail)
        with pytest.raises(FactoryFailed):
            create(factories.FailingFactory)
        assert "was left behind" in caplog.text
        assert "documents/paper.txt" in caplog.text


class TestRemoving:
    def test_goes_when_its_row_has_gone(self, media: Path) -> None:
        create(factories.DocumentFactory)
        put("documents/real.txt")
        assert remove() == ({}, [("referenced", {"outside.Document": 1})])
        [entry] = files()
        assert (entry.state, entry.reason) == ("quarantined", "referenced")
        assert entry.blocked_by == {"outside.Document": 1}
        assert len(stored(media)) == 2
        take_away()
        assert remove() == ({"file": 1}, [])
        assert stored(media) == ["documents/real.txt"]
        [entry] = files()
        assert (entry.state, entry.reason, entry.blocked_by) == ("removed", "", {})

    def test_stays_while_a_real_row_names_it(self, media: Path) -> None:
        document = create(factories.DocumentFactory)
        name = document.file.name
        take_away()
        real = [Document.objects.create(title="real", file=name) for _ in range(2)]
        assert remove() == ({}, [("referenced", {"outside.Document": 2})])
        assert stored(media) == [name]
        real[0].delete()
        real[1].delete()
        assert remove() == ({"file": 1}, [])

    def test_stays_while_another_column_with_that_storage_names_it(self, media: Path) -> None:
        name = create(factories.DocumentFactory).file.name
        take_away()
        picture = Picture(image=name)
        Picture.objects.bulk_create([picture])
        assert remove() == ({}, [("referenced", {"outside.Picture": 1})])
        Picture.objects.all().delete()
        assert remove() == ({"file": 1}, [])

    def test_a_name_in_another_storage_is_another_file(self, media: Path) -> None:
        name = create(factories.DocumentFactory).file.name
        take_away()
        Document.objects.create(title="real", scan=name)
        assert remove() == ({"file": 1}, [])

    def test_each_goes_from_its_own_storage(self, media: Path) -> None:
        create(factories.ArchivedFactory)
        create(factories.ContractFactory)
        create(factories.PictureFactory)
        for model in (Contract, Document, Picture):
            take_away(model)
        assert remove() == ({"file": 4}, [])
        assert not stored(media)
        assert not archived()

    def test_what_somebody_else_deleted_is_no_failure(self, media: Path) -> None:
        create(factories.DocumentFactory)
        take_away()
        (media / "documents" / "paper.txt").unlink()
        assert remove() == ({"file": 1}, [])

    def test_a_storage_that_raises_for_what_is_not_there_has_nothing_to_do(
        self, media: Path, monkeypatch: Any
    ) -> None:
        def fail(self: Any, name: str) -> None:
            raise FileNotFoundError(name)

        create(factories.DocumentFactory)
        take_away()
        monkeypatch.setattr(FileSystemStorage, "delete", fail)
        assert remove() == ({"file": 1}, [])

    def test_a_storage_that_fails_leaves_residue_until_it_recovers(
        self, media: Path, monkeypatch: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        tried: list[str] = []

        def fail(self: Any, name: str) -> None:
            tried.append(name)
            raise OSError("read-only")

        create(factories.DocumentFactory)
        create(factories.ArchivedFactory)
        take_away()
        with monkeypatch.context() as patched:
            patched.setattr(FileSystemStorage, "delete", fail)
            assert remove() == ({"file": 1}, [("external_failed", {})])
        assert len(tried) == FileHandler.attempts
        assert "read-only" in caplog.text
        assert stored(media) == ["documents/paper.txt"]
        assert remove() == ({"file": 1}, [])
        assert not stored(media)

    @pytest.mark.parametrize(
        "gone", ["nowhere.thing.file:a", "outside.document.nothing:a", "outside.document.title:a", "nonsense"]
    )
    def test_a_column_that_is_not_installed_any_more_is_residue(self, media: Path, gone: str) -> None:
        create(factories.DocumentFactory)
        take_away()
        TestEntity.objects.filter(model="external.file").update(key_text=gone)
        assert remove() == ({}, [("external_missing", {})])

    def test_many_files_are_looked_for_together(self, media: Path) -> None:
        with registered(thing=factories.DocumentFactory):
            perform(lambda call: [call.create("thing") for _ in range(20)])
        with CaptureQueriesContext(connection) as queries:
            assert len(remove()[1]) == 20
        looks = [each["sql"] for each in queries if "outside_" in each["sql"]]
        # One for each column whose storage is the same: file, signature, image.
        assert len(looks) == 3, looks
        assert len(stored(media)) == 20
