"""The surroundings of the old tables: on a PostgreSQL server their owner, views on them, privileges of other roles.

Dropping a table drops its privileges, and fails while a view needs it. So views are dropped first and created again at
the end, and privileges are granted again. Anything else that would be lost is refused before the work begins; in an
SQLite file, these are triggers and indexes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from yaptide.domain.errors import Conflict
from yaptide.persistence.adoption.legacy import COLUMNS
from yaptide.persistence.adoption.work import Work
from yaptide.persistence.engine import Record

#: Seconds to wait for a backend that is still running.
_PATIENCE = 10
_ADVISORY_LOCK = text("SELECT pg_try_advisory_xact_lock(7927833)")  # the same as in migrations
_LOCKED = "55P03"

_TABLES = text(
    """
    SELECT oid, relname, quote_ident(pg_get_userbyid(relowner)) AS owner, relrowsecurity,
        pg_has_role(session_user, relowner, 'MEMBER') AS is_member
    FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname = ANY(:names)
    ORDER BY relname
    """
)
_MAY_CREATE = text("SELECT has_schema_privilege(current_schema(), 'CREATE')")
_DEPENDENT_VIEWS = text(
    """
    WITH RECURSIVE dependents (oid, depth) AS (
        SELECT ev_class, 1
        FROM pg_rewrite
        JOIN pg_depend ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid
        WHERE refclassid = 'pg_class'::regclass AND refobjid = ANY(:tables) AND ev_class <> refobjid
        UNION SELECT ev_class, depth + 1
        FROM dependents
        JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = dependents.oid
        JOIN pg_rewrite ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid AND ev_class <> dependents.oid
    )
    SELECT dependents.oid, format('%I.%I', nspname, relname) AS name, relkind::text AS kind,
        quote_ident(pg_get_userbyid(relowner)) AS owner, pg_has_role(session_user, relowner, 'MEMBER') AS is_member,
        has_schema_privilege(relowner, relnamespace, 'CREATE') AS may_create,
        pg_get_viewdef(dependents.oid) AS definition,
        coalesce(array_to_string(reloptions, ', '), '') AS options,
        obj_description(dependents.oid, 'pg_class') AS comment,
        (SELECT count(*) FROM pg_trigger WHERE tgrelid = dependents.oid) AS triggers,
        (SELECT count(*) FROM pg_rewrite WHERE ev_class = dependents.oid) AS rules
    FROM dependents
    JOIN pg_class ON pg_class.oid = dependents.oid
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    GROUP BY dependents.oid, nspname, relname, relkind, relowner, relnamespace, reloptions
    ORDER BY max(depth), 2
    """
)
#: Objects that need the tables, or that would silently disappear with them, other than views.
_OTHER_OBJECTS = text(
    """
    SELECT DISTINCT pg_describe_object(classid, objid, objsubid)
    FROM pg_depend
    WHERE refobjid IN (SELECT unnest(CAST(:relations AS oid[]))
            UNION SELECT reltype FROM pg_class WHERE oid = ANY(:relations))
        AND refclassid IN ('pg_class'::regclass, 'pg_type'::regclass)
        AND CASE classid
            WHEN 'pg_proc'::regclass THEN true
            WHEN 'pg_policy'::regclass THEN true
            WHEN 'pg_publication_rel'::regclass THEN true
            WHEN 'pg_statistic_ext'::regclass THEN true
            WHEN 'pg_trigger'::regclass THEN NOT (SELECT tgisinternal FROM pg_trigger WHERE oid = objid)
            WHEN 'pg_rewrite'::regclass THEN EXISTS (
                SELECT FROM pg_rewrite JOIN pg_class ON pg_class.oid = ev_class
                WHERE pg_rewrite.oid = objid AND relkind NOT IN ('v', 'm'))
            WHEN 'pg_constraint'::regclass THEN EXISTS (
                SELECT FROM pg_constraint WHERE oid = objid AND contype IN ('f', 'c', 'x') AND NOT (
                    contype = 'f' AND conrelid = ANY(:relations)))
            WHEN 'pg_class'::regclass THEN EXISTS (
                SELECT FROM pg_class WHERE oid = objid AND relkind IN ('r', 'p', 'f', 'i', 'm')
                AND oid <> ALL(:relations))
            WHEN 'pg_attrdef'::regclass THEN NOT EXISTS (
                SELECT FROM pg_attrdef WHERE oid = objid AND adrelid = ANY(:relations))
            ELSE false END
    ORDER BY 1
    """
)
_GRANTS = text(
    """
    SELECT pg_class.oid, NULL AS column_name, privilege_type AS privilege, is_grantable,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS role
    FROM pg_class, aclexplode(relacl)
    WHERE pg_class.oid = ANY(:relations) AND grantee <> relowner
    UNION ALL SELECT attrelid, quote_ident(attname), privilege_type, is_grantable,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
    FROM pg_attribute, aclexplode(attacl)
    WHERE attrelid = ANY(:relations) AND NOT attisdropped
    ORDER BY 5, 3, 2
    """
)
_SEQUENCES = text(
    """
    SELECT objid AS oid, refobjid AS owner FROM pg_depend
    WHERE classid = 'pg_class'::regclass AND deptype IN ('a', 'i') AND refobjid = ANY(:tables)
        AND EXISTS (SELECT FROM pg_class WHERE oid = objid AND relkind = 'S')
    """
)

#: Triggers and indexes in an SQLite file. Indexes of the table definitions themselves have no statement.
_OBJECTS_OF_FILE = text(
    """
    SELECT tbl_name, type || ' ' || name || ' of table ' || tbl_name FROM sqlite_master
    WHERE type IN ('trigger', 'index') AND sql NOT NULL ORDER BY 2
    """
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The objects to be restored around the new tables. Empty on SQLite, where views name their tables."""

    owner: str = ""
    views: Sequence[Record] = ()
    tables: Mapping[int, str] = field(default_factory=dict)
    """Names of the old tables by their object id."""
    sequences: Mapping[int, str] = field(default_factory=dict)
    """Names of the old tables by the object id of their sequence."""
    grants: Sequence[Record] = ()


def lock_migrations(connection: Connection) -> None:
    """Refuse to run beside another migration; SQLite has only one writer anyway."""
    if connection.dialect.name == "postgresql" and not connection.execute(_ADVISORY_LOCK).scalar():
        raise Conflict(
            "Another yaptide db adopt or db upgrade is changing this database; this one has changed nothing. "
            "Wait until the other has ended"
        )


def save_surroundings(connection: Connection) -> Surroundings:
    """Act as the owner of the old tables, lock them, and drop the views on them; return what must be restored.

    Raises Conflict, before anything has changed, if this role must not change the tables, another program uses them, or
    objects depend on them that cannot be restored.
    """
    if connection.dialect.name != "postgresql":
        objects = connection.execute(_OBJECTS_OF_FILE).all()
        _refuse_losses([description for table, description in objects if table in COLUMNS], "the command .schema")
        return Surroundings()
    names = [*COLUMNS, "alembic_version"]
    tables = connection.execute(_TABLES, {"names": names}).all()
    owner = _become_owner(connection, tables)
    _lock_tables(connection, [row.relname for row in tables])
    oids = [row.oid for row in tables]
    views = connection.execute(_DEPENDENT_VIEWS, {"tables": oids}).all()
    _check_views(views)
    _check_other_objects(connection, tables, [*oids, *(view.oid for view in views)])
    table_names = {row.oid: row.relname for row in tables}
    sequences = {row.oid: table_names[row.owner] for row in connection.execute(_SEQUENCES, {"tables": oids})}
    relations = [*table_names, *sequences, *(view.oid for view in views)]
    grants = connection.execute(_GRANTS, {"relations": relations}).all()
    for view in reversed(views):
        _run_as(connection, view.owner, f"DROP VIEW {view.name}")
    _become(connection, owner)
    return Surroundings(owner, views, table_names, sequences, grants)


def restore_surroundings(work: Work, surroundings: Surroundings) -> None:
    """Grant privileges on the new tables as they were on the old ones, and create the views again."""
    connection = work.connection
    for number, name in surroundings.tables.items():
        _restore_grants(work, surroundings, number, f'TABLE "{name}"', name)
    for number, name in surroundings.sequences.items():
        sequence = connection.execute(text("SELECT pg_get_serial_sequence(:name, 'id')"), {"name": f'"{name}"'})
        _restore_grants(work, surroundings, number, f"SEQUENCE {sequence.scalar()}", f"{name} (sequence)")
    for view in surroundings.views:
        options = f" WITH ({view.options})" if view.options else ""
        _run_as(connection, view.owner, f"CREATE VIEW {view.name}{options} AS {view.definition}")
        if view.comment is not None:
            quoted = connection.execute(text("SELECT quote_literal(:comment)"), {"comment": view.comment}).scalar()
            connection.exec_driver_sql(f"COMMENT ON VIEW {view.name} IS {quoted}".replace("%", "%%"))
        _restore_grants(work, surroundings, view.oid, f"TABLE {view.name}", view.name)
        work.decide(f"View {view.name}", "", "created again", "it uses tables that were converted")
    if surroundings.views:
        _become(connection, surroundings.owner)


def _restore_grants(work: Work, surroundings: Surroundings, relation: int, target: str, name: str) -> None:
    privileges: dict[str, list[str]] = {}
    for row in surroundings.grants:
        if row.oid == relation:
            column = f" ({row.column_name})" if row.column_name else ""
            grant_option = " WITH GRANT OPTION" if row.is_grantable else ""
            statement = f"GRANT {row.privilege}{column} ON {target} TO {row.role}{grant_option}"
            work.connection.exec_driver_sql(statement.replace("%", "%%"))
            privileges.setdefault(row.role, []).append(f"{row.privilege}{column}{grant_option}")
    for role, words in privileges.items():
        work.decide(f"Privileges {name}", role, f"granted again: {', '.join(words)}", "the old table had them")


def _become_owner(connection: Connection, tables: Sequence[Record]) -> str:
    """Act as the owner of the tables until the end of the transaction; return its quoted name."""
    owners: list[str] = sorted({row.owner for row in tables})
    if len(owners) > 1:
        raise _refusal(f"its tables belong to several roles: {', '.join(owners)}. Give all of them to one role")
    if not tables[0].is_member:
        raise _refusal(f"its tables belong to the role {owners[0]}. Connect as this role, or as a member of it")
    _become(connection, owners[0])
    if not connection.execute(_MAY_CREATE).scalar():
        schema = connection.execute(text("SELECT quote_ident(current_schema())")).scalar()
        raise _refusal(f"run this first: GRANT CREATE ON SCHEMA {schema} TO {owners[0]}")
    return owners[0]


def _lock_tables(connection: Connection, names: Sequence[str]) -> None:
    """Lock the tables, but do not wait for long for a backend that still runs."""
    quoted = ", ".join(f'"{name}"' for name in names)
    connection.execute(text(f"SET LOCAL lock_timeout = '{_PATIENCE}s'"))
    try:
        connection.execute(text(f"LOCK TABLE {quoted} IN ACCESS EXCLUSIVE MODE"))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", "") != _LOCKED:
            raise
        reason = f"another program has used its tables for {_PATIENCE} s. Stop the old backend and its workers"
        raise _refusal(reason) from error


def _check_views(views: Sequence[Record]) -> None:
    """Check that all views can be created again as they are."""
    for view in views:
        if view.kind != "v" or view.triggers or view.rules > 1:
            kind = "a materialized view" if view.kind == "m" else "a view with rules or triggers"
            reason = f"{view.name} is {kind} that uses its tables" if view.kind in "vm" else f"{view.name} has rules"
            raise _refusal(f"{reason}. Save its definition with pg_dump, drop it, and create it again afterwards")
        if not view.is_member:
            raise _refusal(f"the view {view.name} uses its tables and belongs to {view.owner}. Connect as a superuser")
        if not view.may_create:
            schema = view.name.rpartition(".")[0]
            raise _refusal(f"for the view {view.name}, run this first: GRANT CREATE ON SCHEMA {schema} TO {view.owner}")


def _check_other_objects(connection: Connection, tables: Sequence[Record], relations: list[int]) -> None:
    objects = list(connection.execute(_OTHER_OBJECTS, {"relations": relations}).scalars())
    objects += [f"row security of table {row.relname}" for row in tables if row.relrowsecurity]
    _refuse_losses(objects, "pg_dump")


def _refuse_losses(objects: Sequence[str], tool: str) -> None:
    """Raise Conflict if any objects would be lost with the tables; `tool` prints their definitions."""
    if objects:
        raise _refusal(
            f"these would be lost with its old tables: {'; '.join(objects)}. "
            f"Save their definitions with {tool}, drop them, and create them again afterwards"
        )


def _run_as(connection: Connection, role: str, statement: str) -> None:
    _become(connection, role)
    connection.exec_driver_sql(statement.replace("%", "%%"))


def _become(connection: Connection, role: str) -> None:
    connection.exec_driver_sql(f"SET LOCAL ROLE {role}".replace("%", "%%"))


def _refusal(reason: str) -> Conflict:
    return Conflict(f"The database cannot be taken over now, and nothing was changed: {reason}")
