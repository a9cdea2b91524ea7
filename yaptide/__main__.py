"""`python -m yaptide` is `yaptide`."""

from yaptide.admin.cli import main

main()
