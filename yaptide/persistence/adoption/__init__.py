"""Convert a database of the older YAPTIDE backend in place.

The old tables are renamed (`staging`), the first migration creates the new ones, the rows are copied (`accounts`,
`simulations`, `payloads`), and the old tables are dropped. Rows without a parent get one before that (`orphans`), so
that copying need not handle them. Views and privileges are restored (`server`). The report lists every decision.

All of it runs in the caller's transaction: the caller commits, or rolls back and leaves the database unchanged.
"""

from sqlalchemy import Connection

from yaptide.persistence.adoption import accounts, legacy, orphans, payloads, server, simulations, staging
from yaptide.persistence.adoption.legacy import REVISIONS as REVISIONS
from yaptide.persistence.adoption.report import Decision as Decision, Report as Report
from yaptide.persistence.adoption.work import Options as Options, Work


def adopt_database(connection: Connection, options: Options) -> Report:
    """Convert the database and return a report; do nothing if it already is a yaptide database.

    `connection` comes from `Database.migrating()`. Raises Conflict if the database is neither that of yaptide nor of an
    older backend, and whatever `options.encrypt` raises; the caller then rolls back.
    """
    server.lock_migrations(connection)
    origin = legacy.recognise_origin(connection)
    if origin.is_yaptide:
        return Report(origin.revision)
    surroundings = server.save_surroundings(connection)
    work = Work(
        connection, options, Report(origin.revision), staging.put_aside(connection), staging.make_ours(connection)
    )
    staging.index_children(connection, work.old)
    orphans.settle_orphans(work)
    work.expect(("Simulation", "Input", "Logfiles", "Estimator", "Page"))
    accounts.copy_accounts(work)
    simulations.copy_simulations(work)
    payloads.copy_payloads(work)
    staging.set_sequences(connection, work.old, work.new)
    work.count_rows()
    staging.drop_staged(connection, work.old)
    staging.bring_up_to_date(connection)
    server.restore_surroundings(work, surroundings)
    return work.report
