"""The worker: one attempt at one job, trained in a process of its own."""
