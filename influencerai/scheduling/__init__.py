"""Scheduling: which job is next, and where it runs: fair share, placement, resource options, start estimates."""
