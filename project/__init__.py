"""A host product: the marketplace with its public pages. It shows the app at work and carries its tests."""
