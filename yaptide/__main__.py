"""`python -m yaptide` is `yaptide`, the command line."""

import gc
import os
import sys


def main() -> None:
    """Run the command line; Ctrl-C during the imports does not show a traceback either."""
    try:
        os.environ["PYTHONSAFEPATH"] = "1"  # child processes must not import code from the working directory
        gc.disable()  # collecting garbage during the imports takes a tenth of the startup time
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
