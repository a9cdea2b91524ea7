"""How many random examples tests draw: few in `make test`, many in `make stress` (the variable EXAMPLES)."""

import os

EXAMPLES = int(os.environ.get("EXAMPLES", "1"))
