"""The URLs of the host product as they are where it does not include ours."""

from project.urls import urlpatterns as with_ours

urlpatterns = [each for each in with_ours if getattr(each, "app_name", None) != "stagehand_testdata"]
