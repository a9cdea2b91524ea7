"""States, under the name that scripts written for the older backend import."""

from yaptide.domain.states import EntityState as EntityState
