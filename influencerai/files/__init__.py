"""Files: written whole or not at all, read below their folder only, on every file system."""
