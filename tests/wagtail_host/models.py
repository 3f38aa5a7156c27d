"""What a site adds to Wagtail: one page type."""

from django.db import models
from wagtail.fields import RichTextField
from wagtail.models import Page
from wagtail.search import index


class ArticlePage(Page):
    intro = models.CharField(max_length=200, blank=True, default="")
    body = RichTextField(blank=True, default="")

    search_fields = [*Page.search_fields, index.SearchField("intro"), index.SearchField("body")]
