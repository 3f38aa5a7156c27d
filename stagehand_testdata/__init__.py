"""Production-safe test data for Django."""

__version__ = "0.1.0"
