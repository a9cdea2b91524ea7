"""What all workloads use."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import history
from benchmarks.history import History
from benchmarks.store import POSTGRESQL, SQLITE, Store
from tests.support.postgres import DURABLE, Postgres, serve
from tests.support.processes import place


@dataclass
class Context:
    """A temporary folder, stores that are created on first use, and the number of rounds."""

    folder: Path
    quick: bool
    variables: dict[str, str]
    stack: ExitStack
    _stores: dict[tuple[str, bool], Store] = field(default_factory=dict)
    _postgres: Postgres | None = None

    def rounds(self, usual: int, quick: int = 2) -> int:
        """Return the number of rounds to measure."""
        return quick if self.quick else usual

    def size(self, usual: int, quick: int) -> int:
        """Return `usual`, or `quick` for a quick run."""
        return quick if self.quick else usual

    def stores(self) -> list[Store]:
        """Return a store per database, with a history of 20,000 simulations and 200,000 tasks."""
        history_size = History((200,), 2000) if self.quick else History((20_000,), 200_000)
        return [self._store(kind, False, ("bench",), history_size) for kind in (SQLITE, POSTGRESQL)]

    def large_stores(self) -> list[Store]:
        """Return a store per database, with four users of increasing numbers of simulations, and 1,000,000 tasks."""
        many = History((10, 100, 200, 400), 3000) if self.quick else History((10, 1000, 20_000, 200_000), 1_000_000)
        names = tuple(f"user{count}" for count in many.users)
        return [self._store(kind, True, names, many) for kind in (SQLITE, POSTGRESQL)]

    def _store(self, kind: str, large: bool, users: tuple[str, ...], past: History) -> Store:
        key = (kind, large)
        if key not in self._stores:
            variables = dict(self.variables)
            if kind == POSTGRESQL:
                variables["FLASK_SQLALCHEMY_DATABASE_URI"] = self.postgres.create_database()
            name = f"{kind}{'-large' if large else ''}".lower()
            store_place = self.stack.enter_context(place(self.folder / name, **variables))
            store = Store(kind, store_place, users)
            store.prepare()
            history.load_history(store, past)
            self._stores[key] = store
        return self._stores[key]

    @property
    def postgres(self) -> Postgres:
        """A server with production settings: every commit waits for the disk."""
        if self._postgres is None:
            self._postgres = self.stack.enter_context(serve(settings=DURABLE))
        return self._postgres
