#!/usr/bin/env python3
"""Administers the database from anywhere, with its URL in FLASK_SQLALCHEMY_DATABASE_URI.

It needs a checkout of yaptide, SQLAlchemy, a driver (psycopg, for PostgreSQL) and typer. The commands are those of
`yaptide users`, `simulations`, `tasks` and `clusters`.
"""

import sys
from pathlib import Path

if not __package__:
    # Run as a file: Python looks beside it, where modules of ours have the names of the standard library's, and not
    # where the package begins.
    _HERE = Path(__file__).resolve().parent
    _OURS = (_HERE.parents[1], _HERE.parents[1] / "client")
    sys.path[:] = [*map(str, _OURS), *(folder for folder in sys.path if Path(folder).resolve() != _HERE)]

from yaptide.admin import administration, clusters, users
from yaptide.admin.entry import new_app, run_command

COMMANDS = (
    users.list_users,
    users.add_user,
    users.update_user,
    users.link_user,
    users.remove_user,
    administration.list_simulations,
    administration.remove_simulation,
    administration.list_tasks,
    administration.remove_task,
    clusters.list_clusters,
    clusters.show_cluster,
    clusters.add_cluster,
    clusters.update_cluster,
    clusters.remove_cluster,
)

app = new_app("db_manage", __doc__)
for command in COMMANDS:
    app.command(command.__name__.replace("_", "-"))(command)


if __name__ == "__main__":
    run_command(app)
