"""Runs: the folder of a run, its training states, history, exported files and results."""
