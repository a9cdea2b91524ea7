"""`python -m yaptide` is `yaptide`, the command line."""

import gc
import os
import sys


def main() -> None:
    """Entry point. Ctrl-C while the rest is being imported is no reason for a traceback either."""
    try:
        os.environ["PYTHONSAFEPATH"] = "1"  # what we start runs no code that lies in the folder where we are
        gc.disable()  # what importing makes is kept: looking for garbage in it takes a tenth of the time to start
        from yaptide.admin import quick_help  # noqa: PLC0415 - see above

        if quick_help.answer_quickly(sys.argv[1:], os.environ):
            return
        from yaptide.admin.cli import main as run  # noqa: PLC0415 - see above

        gc.freeze()
        gc.enable()
        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
