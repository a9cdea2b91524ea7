"""How queries are written, whatever they ask."""

import ast
from pathlib import Path

import yaptide.persistence.queries

#: What may follow `in_`: constants, other queries, and what there are only a few of.
FEW = ("states", "self.states", "allowed", "sim_types", "merges")
QUERIES = ("select(", "newest", "waiting", "numbers", "unfinished")
CONSTANTS = ("EntityState", "_pairs(", "source_states(", "'sources'")


def test_no_query_binds_a_parameter_for_each_item_of_a_list() -> None:
    """PostgreSQL takes 65,535 of them: a list that may be long goes through `rows.is_among`."""
    wrong = []
    for path in sorted(Path(yaptide.persistence.queries.__path__[0]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("in_", "not_in"):
                (values,) = map(ast.unparse, node.args)
                if not is_bounded(values):
                    wrong.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert wrong == []


def is_bounded(values: str) -> bool:
    constant = values.lstrip("_").isupper() or any(word in values for word in CONSTANTS)
    return constant or values in FEW or any(word in values for word in QUERIES)
