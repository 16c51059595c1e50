"""Batch: many trainings from one file, on this machine or on a server."""
