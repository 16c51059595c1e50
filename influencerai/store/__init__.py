"""The database: the only package with SQL. The URL chooses SQLite or Postgres; no other package depends on which."""

from influencerai.store.store import Store, Transaction

__all__ = ["Store", "Transaction"]
