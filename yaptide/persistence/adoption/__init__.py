"""Turns a database of the existing YAPTIDE backend into ours, in place.

The old tables are put aside under other names (`staging`), ours are made by our own first migration, the rows are
copied (`accounts`, `simulations`, `payloads`), and the old tables are dropped. What refers to nothing is given
something to refer to before that (`orphans`), so that the copying need not care. Each choice that had to be made is in
the report.

All of it runs in the caller's transaction: the caller commits, or rolls back and the database is as it was.
"""

from sqlalchemy import Connection

from yaptide.persistence.adoption import accounts, legacy, orphans, payloads, simulations, staging
from yaptide.persistence.adoption.legacy import REVISIONS as REVISIONS
from yaptide.persistence.adoption.report import Decision as Decision, Report as Report
from yaptide.persistence.adoption.work import Options as Options, Work


def adopt_database(connection: Connection, options: Options) -> Report:
    """Turn the database into ours; the report tells if it was already, and then nothing was changed.

    `connection` is one of `Database.migrating()`. Raises Conflict if the database is neither ours nor one that can be
    taken over, and whatever `options.encrypt` raises; the caller then rolls back.
    """
    staging.lock_migrations(connection)
    found = legacy.recognise_origin(connection)
    if found.ours:
        return Report(found.revision)
    work = Work(
        connection, options, Report(found.revision), staging.put_aside(connection), staging.make_ours(connection)
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
    return work.report
