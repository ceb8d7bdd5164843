"""Alembic's entry: works on the connection it is given by `eventwright.runs.migrate`, in that one transaction."""

from alembic import context

from eventwright.runs import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
