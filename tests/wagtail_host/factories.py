"""Plain factories on top of Wagtail's own: none of them knows of test runs."""

import factory
import wagtail_factories
from wagtail.models import Site

from . import models


def _front_page():
    return Site.objects.get(is_default_site=True).root_page


class ArticleFactory(wagtail_factories.PageFactory):
    """An article on the site that visitors see, like an editor's."""

    class Meta:
        model = models.ArticlePage

    title = factory.Sequence(lambda n: f"Article {n}")
    intro = factory.Faker("sentence")
    body = factory.LazyFunction(lambda: f'<p>See <a linktype="page" id="{_front_page().pk}">home</a>.</p>')
    parent = factory.LazyFunction(_front_page)


class SubArticleFactory(ArticleFactory):
    """An article below an article of its own."""

    parent = factory.SubFactory(ArticleFactory)


class PublishedArticleFactory(ArticleFactory):
    """An article that went through the editor: with a revision, and with a line in the log."""

    class Meta:
        skip_postgeneration_save = True

    @factory.post_generation
    def publish(self, create, extracted, **kwargs):
        self.save_revision(log_action=True).publish()
