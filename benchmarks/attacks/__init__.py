"""Attacks on a running server: each module has `run`, which measures what the other tenants notice."""
