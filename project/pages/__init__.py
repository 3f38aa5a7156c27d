"""The marketplace as its visitors see it."""
