"""The process that carries out one attempt: its messages, the supervisor that starts and stops it, and its entry."""
