"""Plain factory_boy factories that write files."""

import factory

from . import models


class DocumentFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Document

    title = factory.Sequence(lambda n: f"document {n}")
    file = factory.django.FileField(filename="paper.txt", data=b"words")


class NamingFactory(factory.django.DjangoModelFactory):
    """Its rows name a file that somebody else has written."""

    class Meta:
        model = models.Document

    title = "naming"
    file = "documents/real.txt"


class ArchivedFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Document

    title = "archived"
    scan = factory.django.FileField(filename="scan.txt", data=b"scan")


class ContractFactory(DocumentFactory):
    class Meta:
        model = models.Contract

    signature = factory.django.FileField(filename="signature.txt", data=b"me")


class PictureFactory(factory.django.DjangoModelFactory):
    class Meta:
        model = models.Picture

    image = factory.django.ImageField(width=3, height=2)


class FailingFactory(DocumentFactory):
    @factory.post_generation
    def fail(self, create, extracted, **kwargs):
        raise RuntimeError("half-way")
