"""The demo product's URLs, and Clerk's webhook."""

from django.urls import include, path

from stagehand_testdata.contrib.clerk import webhook

urlpatterns = [path("hooks/clerk", webhook), path("", include("project.urls"))]
