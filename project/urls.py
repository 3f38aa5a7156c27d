"""Every address of the host product."""

from django.conf import settings
from django.contrib import admin
from django.contrib.sitemaps.views import sitemap
from django.contrib.staticfiles.views import serve
from django.urls import include, path
from django.views.generic import RedirectView

from project.pages.exports import BuilderSitemap
from project.shop.views import ProductSitemap

SITEMAPS = {"builders": BuilderSitemap, "products": ProductSitemap}

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="pages:builders"), name="home"),
    path("admin/", admin.site.urls),
    path("api/test/", include("stagehand_testdata.urls")),
    path("marketplace/", include("project.pages.urls")),
    path("shop/", include("project.shop.urls")),
    path("sitemap.xml", sitemap, {"sitemaps": SITEMAPS}, name="sitemap"),
]

if settings.SERVE_STATIC:
    urlpatterns += [path("static/<path:path>", serve, {"insecure": True}, name="static")]
