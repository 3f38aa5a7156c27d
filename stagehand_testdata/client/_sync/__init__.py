# Made from ../_async/__init__.py by `make client`: change that one.
"""One of the two halves of the client. `_async` is the source, `make client` makes `_sync` from it."""
