"""A host app whose rows have files, and real servers on loopback for what is outside the database."""
