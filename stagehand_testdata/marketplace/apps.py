from django.apps import AppConfig


class MarketplaceConfig(AppConfig):
    name = "stagehand_testdata.marketplace"
    label = "stagehand_marketplace"
    verbose_name = "Marketplace"
    default_auto_field = "django.db.models.BigAutoField"
