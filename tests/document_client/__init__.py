"""The strategy document's own TypeScript client, unchanged, against a live server."""
