#!/usr/bin/env python3
"""Manage the database from any machine, with its URL in FLASK_SQLALCHEMY_DATABASE_URI.

Needs a checkout of yaptide, SQLAlchemy, a driver (psycopg for PostgreSQL) and typer. The commands are those of `yaptide
users`, `simulations`, `tasks` and `clusters`. Command lines of the older backend work, too, with a warning.
"""

import sys
from pathlib import Path

if not __package__:
    # Run as a script: sys.path begins with this folder, where modules have names of the standard library, instead of
    # with the folder of the package.
    _HERE = Path(__file__).resolve().parent
    _PACKAGES = (_HERE.parents[1], _HERE.parents[1] / "client")
    sys.path[:] = [*map(str, _PACKAGES), *(folder for folder in sys.path if Path(folder).resolve() != _HERE)]

from yaptide.admin import administration, clusters, older_commands, users
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
    run_command(app, older_commands.translate)
