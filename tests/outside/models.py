"""Rows with files in storage."""

from django.core.files.storage import InMemoryStorage
from django.db import models

archive = InMemoryStorage()


class Document(models.Model):
    title = models.CharField(max_length=100)
    file = models.FileField(upload_to="documents", blank=True)
    scan = models.FileField(storage=archive, blank=True, max_length=300)


class Contract(Document):
    """A child of a multi-table parent, with a file of its own."""

    signature = models.FileField(upload_to="signatures", blank=True)


class Picture(models.Model):
    image = models.ImageField(upload_to="pictures", width_field="width", height_field="height")
    width = models.IntegerField(null=True)
    height = models.IntegerField(null=True)
