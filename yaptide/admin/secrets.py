"""`yaptide secrets`: keys that encrypt private SSH keys in the database."""

import typer

from yaptide.admin.display import out, print_message
from yaptide.admin.store import open_store
from yaptide.domain.errors import NotConfigured

app = typer.Typer(help="Create and rotate the keys that encrypt stored secrets.", no_args_is_help=True)


@app.command("new-key")
def new_key() -> None:
    """Print a new key for YAPTIDE_SECRET_KEYS. Keep it apart from the database and its backups.

    Example: yaptide secrets new-key
    """
    from yaptide.services import secrets  # noqa: PLC0415 - few commands need cryptography

    out.print(secrets.new_key(), soft_wrap=True, highlight=False)


@app.command("rotate")
def rotate_secrets() -> None:
    """Re-encrypt all secrets with the first key of YAPTIDE_SECRET_KEYS. Then remove the old keys from it.

    Example: YAPTIDE_SECRET_KEYS=NEW,OLD yaptide secrets rotate
    """
    from yaptide.services import secrets  # noqa: PLC0415 - see above

    store = open_store()
    if not store.settings.secrets:
        raise NotConfigured(
            "No encryption key: set YAPTIDE_SECRET_KEYS to the new key followed by the old ones, separated by commas; "
            "create a key with: yaptide secrets new-key"
        )
    changed, total = secrets.rotate_secrets(store.backend.database, secrets.Vault(store.settings.secrets))
    print_message(f"Re-encrypted {changed} of {total} secrets; all of them use the first key now")
