"""The `yaptide` command line."""
