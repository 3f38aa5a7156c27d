"""Models as hosts have them: every way to be keyed, to point and to mind one's own deletion."""

import uuid
from datetime import date

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.db import models

from stagehand_testdata.isolation.visibility import HidesTestData, TestDataManager, TestDataModel


class Country(models.Model):
    """A catalogue with a natural key."""

    code = models.CharField(max_length=2, primary_key=True)
    name = models.CharField(max_length=100)


class Label(models.Model):
    text = models.CharField(max_length=100, unique=True)


class Author(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100)
    country = models.ForeignKey(Country, on_delete=models.PROTECT, null=True, blank=True)


class Book(models.Model):
    title = models.CharField(max_length=200)
    blurb = models.TextField(blank=True, default="")
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="books")
    labels = models.ManyToManyField(Label, blank=True)
    price = models.DecimalField(max_digits=8, decimal_places=2, default=0)
    published = models.DateField(null=True, blank=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True)


class Chapter(models.Model):
    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="chapters")
    position = models.PositiveSmallIntegerField()
    title = models.CharField(max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        unique_together = [("book", "position")]


class Voucher(models.Model):
    """A key that people type in."""

    code = models.CharField(max_length=50, primary_key=True)
    note = models.CharField(max_length=200)


class Review(models.Model):
    """Points at a book so that deleting the book would change it."""

    book = models.ForeignKey(Book, on_delete=models.SET_NULL, null=True, blank=True)
    text = models.CharField(max_length=200)


class Loan(models.Model):
    book = models.ForeignKey(Book, on_delete=models.PROTECT)
    by = models.CharField(max_length=100)


class Place(models.Model):
    name = models.CharField(max_length=100)


class Restaurant(Place):
    """A child of a multi-table parent."""

    serves = models.CharField(max_length=100)


class Person(models.Model):
    """Points at its own kind."""

    name = models.CharField(max_length=100)
    boss = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True, related_name="staff")


class Team(models.Model):
    name = models.CharField(max_length=100)
    captain = models.ForeignKey("Player", on_delete=models.SET_NULL, null=True, blank=True, related_name="+")


class Player(models.Model):
    """Half of a circle."""

    name = models.CharField(max_length=100)
    team = models.ForeignKey(Team, on_delete=models.CASCADE)


class Note(models.Model):
    """Points at anything."""

    text = models.CharField(max_length=200)
    content_type = models.ForeignKey(ContentType, on_delete=models.CASCADE)
    object_id = models.CharField(max_length=64)
    subject = GenericForeignKey("content_type", "object_id")


class Archived(models.Model):
    """Its delete() only marks the row."""

    name = models.CharField(max_length=100)
    is_deleted = models.BooleanField(default=False)

    def delete(self, *args, **kwargs):
        self.is_deleted = True
        self.save()
        return 0, {}


class Watched(models.Model):
    """Somebody listens when it goes."""

    name = models.CharField(max_length=100)


class Journal(models.Model):
    """What the listener writes."""

    line = models.CharField(max_length=200)


class Hall(models.Model):
    name = models.CharField(max_length=100)


class Stall(models.Model):
    """Known by two columns together."""

    pk = models.CompositePrimaryKey("hall", "number")
    hall = models.ForeignKey(Hall, on_delete=models.CASCADE)
    number = models.PositiveIntegerField()
    plate = models.CharField(max_length=100)


class Sheet(models.Model):
    title = models.CharField(max_length=50, unique=True)
    printed = models.DateField(default=date(2030, 1, 1))
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="%(class)ss")
    labels = models.ManyToManyField(Label, blank=True, related_name="%(class)ss")

    class Meta:
        abstract = True


class Flyer(TestDataModel, Sheet):
    """Says itself whether it is a test row."""


class Billboard(Flyer):
    """Its parent's table says it."""

    height = models.PositiveSmallIntegerField(default=1)

    class Meta:
        """Its own: the index is the parent's table's."""


class PosterQuerySet(models.QuerySet):
    def titled(self, title):
        return self.filter(title=title)


class Poster(Sheet):
    """Whether it is a test row is the ledger's to say."""

    objects = TestDataManager.from_queryset(PosterQuerySet)()


class TicketManager(models.Manager):
    def get_queryset(self):
        return super().get_queryset().filter(used=False)

    def named(self, name):
        return self.filter(name=name)


class HidingTicketManager(HidesTestData, TicketManager):
    """A manager of the host's own, and ours in front of it."""


class Ticket(models.Model):
    code = models.CharField(max_length=20, primary_key=True)
    name = models.CharField(max_length=50)
    used = models.BooleanField(default=False)

    objects = HidingTicketManager()


class Role(models.Model):
    """What a product of its own mind has in the place of a group."""

    name = models.CharField(max_length=50)
    permissions = models.ManyToManyField(Permission, blank=True)


class Member(AbstractBaseUser):
    """An account beside the users, with rights of its own making."""

    USERNAME_FIELD = "login"
    EMAIL_FIELD = "mail"

    login = models.CharField(max_length=100, unique=True)
    mail = models.CharField(max_length=200, blank=True, default="")
    chief = models.BooleanField(default=False, db_column="is_staff")
    is_admin = models.BooleanField(default=False)
    role = models.CharField(max_length=20, default="guest")
    rank = models.CharField(max_length=20, default="private")
    duty = models.ForeignKey(Role, on_delete=models.SET_NULL, null=True, blank=True)


class Profile(models.Model):
    """What a user is besides."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    role = models.CharField(max_length=20, default="guest")
    bio = models.TextField(blank=True, default="")


class ProvenAddress(models.Model):
    """An address that somebody has proven to be theirs, as django-allauth keeps them."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    email = models.EmailField(unique=True)
    verified = models.BooleanField(default=False)
