"""Alembic's entry: migrate over the connection that the caller holds."""

from alembic import context

from influencerai.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
