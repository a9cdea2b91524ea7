"""`python -m tests.stress`: real processes do everything at once to one store, some are killed, nothing may be wrong.

make stress                                             five minutes on each database; see docs/reliability.md
python -m tests.stress --seconds 30 --database sqlite
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from tests.stress.storm import Report, storm
from tests.support.postgres import DURABLE, serve


def main() -> int:
    """Run the storm on the databases asked for, and print what it did as JSON; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="how long on each database")
    parser.add_argument("--database", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    reports: dict[str, Report] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.database in ("sqlite", "both"):
            url = f"sqlite:///{folder}/yaptide.db"
            reports["sqlite"] = storm(url, Path(folder) / "sqlite", options.seconds, options.seed)
        if options.database in ("postgresql", "both"):
            with serve(settings=DURABLE) as server:
                url = server.create_database()
                reports["postgresql"] = storm(url, Path(folder) / "postgresql", options.seconds, options.seed)
    sys.stdout.write(json.dumps(reports, indent=2) + "\n")
    return 1 if any(report["wrong"] for report in reports.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
