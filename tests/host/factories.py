"""Plain factory_boy factories: none of them knows of test runs."""

import factory

from . import models


class CountryFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Country
        django_get_or_create = ("code",)

    code = "NL"
    name = "Netherlands"


class LabelFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Label

    text = factory.Sequence(lambda n: f"label {n}")


class AuthorFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Author

    name = factory.Faker("name")
    country = factory.SubFactory(CountryFactory)


class BookFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Book
        skip_postgeneration_save = True

    title = factory.Faker("sentence")
    author = factory.SubFactory(AuthorFactory)
    chapter = factory.RelatedFactory("tests.host.factories.ChapterFactory", factory_related_name="book")

    @factory.post_generation
    def labels(self, create, extracted, **kwargs):
        if create:
            self.labels.add(LabelFactory(), LabelFactory())


class ChapterFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Chapter

    book = factory.SubFactory(BookFactory, chapter=None)
    position = factory.Sequence(lambda n: n)
    title = factory.Faker("sentence")


class VoucherFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Voucher

    code = factory.Sequence(lambda n: f"CODE-{n}")
    note = factory.Faker("sentence")


class RestaurantFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Restaurant

    name = factory.Faker("company")
    serves = factory.Iterator(["pizza", "pasta", "soup"])


class PersonFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Person

    name = factory.Faker("name")


class TeamFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Team
        skip_postgeneration_save = True

    name = factory.Faker("company")

    @factory.post_generation
    def captain(self, create, extracted, **kwargs):
        self.captain = models.Player.objects.create(name="captain", team=self)
        self.save()


class NoteFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Note

    text = "a note"
    subject = factory.SubFactory(VoucherFactory)


class ArchivedFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Archived

    name = factory.Faker("name")


class WatchedFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Watched

    name = factory.Faker("name")


class UserFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = "auth.User"

    username = factory.Sequence(lambda n: f"user{n}")
    email = factory.LazyAttribute(lambda user: f"{user.username}@example.com")
    password = factory.django.Password("secret")


class StaffFactory(UserFactory):
    is_staff = True


class FailingFactory(VoucherFactory):
    @factory.post_generation
    def fail(self, create, extracted, **kwargs):
        raise RuntimeError("half-way")


class BulkFactory(VoucherFactory):
    """Makes more of them in bulk."""

    @factory.post_generation
    def more(self, create, extracted, **kwargs):
        models.Label.objects.bulk_create([models.Label(text=f"{self.code} {n}") for n in range(3)])


class RawFactory(VoucherFactory):
    """Makes rows behind the ORM's back."""

    @factory.post_generation
    def raw(self, create, extracted, **kwargs):
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO host_label (text) VALUES ('raw')")


class HallFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Hall

    name = factory.Faker("company")


class StallFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Stall

    hall = factory.SubFactory(HallFactory)
    number = factory.Sequence(lambda number: number + 1)
    plate = factory.Faker("company")


class FlyerFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Flyer
        django_get_or_create = ("title",)

    title = factory.Sequence(lambda n: f"flyer {n}")
    author = factory.SubFactory(AuthorFactory)


class BillboardFactory(FlyerFactory):
    class Meta:
        model = models.Billboard


class PosterFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Poster
        django_get_or_create = ("title",)

    title = factory.Sequence(lambda n: f"poster {n}")
    author = factory.SubFactory(AuthorFactory)


class TicketFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Ticket

    code = factory.Sequence(lambda n: f"T{n}")
    name = factory.Faker("name")


class MemberFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Member

    login = factory.Sequence(lambda n: f"member{n}")
    mail = factory.LazyAttribute(lambda member: f"{member.login}@example.com")
    password = factory.django.Password(None)


class ProfileFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Profile

    user = factory.SubFactory(UserFactory)


class ProvenAddressFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.ProvenAddress

    user = factory.SubFactory(UserFactory)
    email = factory.Sequence(lambda n: f"proven{n}@example.com")
