"""Clerk's Backend API on loopback, held against Clerk's own description of it."""
