"""How Alembic runs our revisions: on the connection that `store.schema` hands over, in its
transaction.

A new revision is a file in `versions`, written by hand with explicit types and names of its own:
what it does must not change with the tables of a later day. HEAD in `store/schema.py` names the
last one. A new column that is not nullable takes a `server_default`, which fills it and stays. All
else in a table of SQLite changes by `batch_alter_table`, which makes it anew; an index over an
expression (of `users`) is lost there and must be made again."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
context.run_migrations()
