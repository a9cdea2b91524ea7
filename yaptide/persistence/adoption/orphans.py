"""Rows that refer to a missing row: written without foreign keys, or without any reference.

Their contents must not be lost, so a placeholder with the missing id is created in the old tables. Placeholder
simulations have no owner and are treated like all simulations without one. Only rows that contain nothing but the
reference are dropped.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Integer, and_, delete, func, insert, or_, select, true, update

from yaptide.persistence.adoption import values
from yaptide.persistence.adoption.work import Work

#: Child, its column that refers to the parent, the parent, and the columns of the child that may have contents. Without
#: such columns, a row always counts as having contents.
_REFERENCES = (
    ("YaptideUser", "id", "User", ("password_hash",)),
    ("KeycloakUser", "id", "User", ("cert", "private_key")),
    ("CelerySimulation", "id", "Simulation", ("merge_id",)),
    ("BatchSimulation", "id", "Simulation", ("job_dir", "array_id", "collect_id")),
    ("BatchTask", "id", "Task", ("id",)),
    ("CeleryTask", "id", "Task", ("celery_id",)),
    ("Task", "simulation_id", "Simulation", ()),
    ("Input", "simulation_id", "Simulation", ("compressed_data",)),
    ("Logfiles", "simulation_id", "Simulation", ("compressed_data",)),
    ("Page", "estimator_id", "Estimator", ()),
    ("Estimator", "simulation_id", "Simulation", ()),
    ("BatchSimulation", "cluster_id", "Cluster", ()),
)


def settle_orphans(work: Work) -> None:
    """Create or assign a parent for every orphan in the old tables."""
    _Orphans(work).settle()


class _Orphans:
    def __init__(self, work: Work) -> None:
        self.work = work
        self.connection = work.connection
        self.old = work.old
        self._common: int | None = None

    def settle(self) -> None:
        for child, column, _, content_columns in _REFERENCES:
            if content_columns:
                self._drop_empty(child, column, content_columns)
        self._adopt_unattached()
        self._replace_texts()
        for child, column, parent, _ in _REFERENCES:
            for number in self._missing(child, column, parent):
                self._make(parent, number, child)
        self._release_unknown_owners()

    def _is_orphan(self, child: str, column: str, parent: str) -> ColumnElement[bool]:
        reference = self.old[child].c[column]
        known = select(self.old[parent].c.id).where(self.old[parent].c.id == reference).correlate(self.old[child])
        return ~known.exists()

    def _drop_empty(self, child: str, column: str, content_columns: tuple[str, ...]) -> None:
        """Drop the orphans among the rows of `child` that have no contents."""
        table = self.old[child]
        parent = next(other for name, key, other, _ in _REFERENCES if (name, key) == (child, column))
        # A row whose only column is its id has no contents.
        empty = and_(true(), *(self._is_empty(table.c[name]) for name in content_columns if name != column))
        empty_orphans = self._is_orphan(child, column, parent) & empty
        for number in self.connection.execute(select(table.c.id).where(empty_orphans).order_by(table.c.id)).scalars():
            self.work.decide(f"{child} {number}", "", "dropped", f"its {parent} is missing, and it has no contents")
        self.connection.execute(delete(table).where(empty_orphans))

    @staticmethod
    def _is_empty(column: ColumnElement[Any]) -> ColumnElement[bool]:
        if isinstance(column.type, Integer):
            return column.is_(None)
        return or_(column.is_(None), func.length(column) == 0)

    def _missing(self, child: str, column: str, parent: str) -> list[int]:
        reference = self.old[child].c[column]
        query = select(reference).where(reference.is_not(None), self._is_orphan(child, column, parent)).distinct()
        return list(self.connection.execute(query.order_by(reference)).scalars())

    def _adopt_unattached(self) -> None:
        """Assign rows without a simulation to one placeholder simulation."""
        for name in ("Task", "Input", "Estimator", "Logfiles"):
            table = self.old[name]
            unattached = table.c.simulation_id.is_(None) | ~self._is_integer(table.c.simulation_id)
            numbers = list(self.connection.execute(select(table.c.id).where(unattached).order_by(table.c.id)).scalars())
            if not numbers:
                continue
            changes: dict[str, Any] = {"simulation_id": self._common_simulation()}
            if name == "Task":
                changes["task_id"] = table.c.id  # several may have the same number
            self.connection.execute(update(table).where(unattached).values(changes))
            for number in numbers:
                placeholder = _job_id(self._common_simulation())
                self.work.decide(
                    f"{name} {number}",
                    placeholder,
                    "kept in a placeholder simulation",
                    "it had no simulation, or not a number",
                )

    def _replace_texts(self) -> None:
        """Refer to a placeholder where SQLite keeps a text, or a fraction, instead of the number of a parent."""
        for child, column, parent in (
            ("Page", "estimator_id", "Estimator"),
            ("BatchSimulation", "cluster_id", "Cluster"),
        ):
            table = self.old[child]
            reference = table.c[column]
            is_wrong = reference.is_not(None) & ~self._is_integer(reference)
            rows = self.connection.execute(select(table.c.id, reference).where(is_wrong).order_by(table.c.id)).all()
            if not rows:
                continue
            number = 1 + max(map(self._largest, (self.old[parent].c.id, reference)))
            self._make(parent, number, child)
            self.connection.execute(update(table).where(is_wrong).values({column: number}))
            for row in rows:
                why = f"its {column} was {values.to_text(row[1])!r}"
                self.work.decide(f"{child} {row.id}", "", f"{column} {number}, a placeholder", why)

    def _is_integer(self, column: ColumnElement[Any]) -> ColumnElement[bool]:
        """Return whether a column has an integer: SQLite keeps any type in it, and takes texts for the largest."""
        return func.typeof(column) == "integer" if self.connection.dialect.name == "sqlite" else true()

    def _largest(self, column: ColumnElement[Any]) -> int:
        query = select(func.max(column)).where(self._is_integer(column))
        return self.connection.execute(query).scalar() or 0

    def _make(self, parent: str, number: int, child: str) -> None:
        """Create the row `number` that rows of `child` refer to."""
        row = self._placeholder(parent, number, child)
        self.connection.execute(insert(self.old[parent]), {"id": number, **row})
        self.work.decide(
            f"{parent} {number}", str(row.get("job_id", "")), "created as a placeholder", f"{child} rows refer to it"
        )

    def _placeholder(self, parent: str, number: int, child: str) -> Mapping[str, Any]:
        """Return the values of the row `number` of a parent table, except its id."""
        if parent == "User":
            return {"username": f"unnamed {number}", "auth_provider": child}
        if parent == "Cluster":
            return {"cluster_name": f"unknown {number}"}
        if parent == "Simulation":
            self.work.placeholders.add(number)
            platform = "BATCH" if child == "BatchSimulation" else "DIRECT"
            values = {"job_id": _job_id(number), "title": f"Orphans of simulation {number}", "platform": platform}
            return {**values, "input_type": "FILES", "sim_type": "unknown", "job_state": "FAILED"}
        common = {"simulation_id": self._common_simulation()}
        if parent == "Task":
            primaries = dict.fromkeys(("requested_primaries", "simulated_primaries"), 0)
            return {**common, "task_id": number, **primaries, "task_state": "FAILED", "platform": "DIRECT"}
        file_name = {"file_name": ""} if "file_name" in self.old["Estimator"].c else {}
        return {**common, "name": f"orphans of estimator {number}", **file_name}

    def _common_simulation(self) -> int:
        """Return the placeholder simulation of rows whose simulation is unknown."""
        if self._common is None:
            used = [self.old["Simulation"].c.id]
            used += [self.old[child].c[column] for child, column, parent, _ in _REFERENCES if parent == "Simulation"]
            self._common = 1 + max(map(self._largest, used))
            self._make("Simulation", self._common, "several")
        return self._common

    def _release_unknown_owners(self) -> None:
        """Clear the owner of simulations whose user is missing."""
        table = self.old["Simulation"]
        unknown = table.c.user_id.is_not(None) & self._is_orphan("Simulation", "user_id", "User")
        query = select(table.c.id, table.c.job_id, table.c.user_id).where(unknown).order_by(table.c.id)
        for number, job_id, user_id in self.connection.execute(query).all():
            self.work.decide(
                f"Simulation {number}", values.to_text(job_id), "has no owner", f"User {user_id} is missing"
            )
        self.connection.execute(update(table).where(unknown).values(user_id=None))


def _job_id(simulation_id: int) -> str:
    return f"left-over-of-simulation-{simulation_id}"
