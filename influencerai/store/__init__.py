"""The database: the only room with SQL. The URL chooses SQLite or Postgres, and nothing outside of here knows which."""

from influencerai.store.store import Store, Transaction

__all__ = ["Store", "Transaction"]
