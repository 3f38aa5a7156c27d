"""A third-party product as a host: Wagtail, with the factories of `wagtail-factories` as they are."""
