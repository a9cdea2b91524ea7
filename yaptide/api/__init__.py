"""The REST API: thin routes that translate requests into calls of the services, and results into JSON.

`ALL` are the blueprints, one per subject.
"""

from yaptide.api.accounts import blueprint as accounts
from yaptide.api.clusters import blueprint as clusters
from yaptide.api.results import blueprint as results
from yaptide.api.simulations import blueprint as simulations
from yaptide.api.status import blueprint as status
from yaptide.api.tasks import blueprint as tasks
from yaptide.api.tokens import blueprint as tokens
from yaptide.api.users import blueprint as users
from yaptide.api.workers import blueprint as work

ALL = (status, users, accounts, tokens, simulations, tasks, results, clusters, work)
