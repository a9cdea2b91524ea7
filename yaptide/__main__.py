"""`python -m yaptide` is `yaptide`, the command line."""

import sys


def main() -> None:
    """Entry point. Ctrl-C while the rest is being imported is no reason for a traceback either."""
    try:
        from yaptide.admin.cli import main as run  # noqa: PLC0415 - see above

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
