"""`python -m tests.stress`: real processes use one store at the same time, some are killed, no invariant may break.

make stress                                             five minutes on each database; see docs/reliability.md
python -m tests.stress --seconds 30 --database sqlite
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.stress.storm import Report, run_storm
from tests.support.postgres import DURABLE, serve


def main() -> int:
    """Run the storm on the chosen databases, and print a report as JSON; return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="duration on each database")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    reports: dict[str, Report] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.database in ("sqlite", "both"):
            url = f"sqlite:///{folder}/yaptide.db"
            reports["sqlite"] = run_storm(url, Path(folder) / "sqlite", options.seconds, options.seed)
        if options.database in ("postgresql", "both"):
            with serve(settings=DURABLE) as server:
                url = server.create_database()
                reports["postgresql"] = run_storm(url, Path(folder) / "postgresql", options.seconds, options.seed)
    sys.stdout.write(json.dumps(reports, indent=2) + "\n")
    return 1 if any(report["wrong"] for report in reports.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
