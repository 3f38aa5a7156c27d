"""Django's own users, whose model and manager the product cannot change."""
