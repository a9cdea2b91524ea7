"""`yaptide secrets`: keys that private keys in the database are encrypted with."""

import typer

from yaptide.admin.display import out, print_message
from yaptide.admin.store import open_store
from yaptide.domain.errors import NotConfigured

app = typer.Typer(help="Make and change the keys that secrets are encrypted with.", no_args_is_help=True)


@app.command("new-key")
def new_key() -> None:
    """Print a new key for YAPTIDE_SECRET_KEYS. Keep it apart from the database and its backups.

    Example: yaptide secrets new-key
    """
    from yaptide.services import secrets  # noqa: PLC0415 - few commands need cryptography

    out.print(secrets.new_key(), soft_wrap=True, highlight=False)


@app.command("rotate")
def rotate_secrets() -> None:
    """Encrypt all secrets with the first key of YAPTIDE_SECRET_KEYS; after that the others can be removed from it.

    Example: YAPTIDE_SECRET_KEYS=NEW,OLD yaptide secrets rotate
    """
    from yaptide.services import secrets  # noqa: PLC0415 - see above

    place = open_store()
    if not place.settings.secrets:
        raise NotConfigured(
            "There is no key to encrypt with: set YAPTIDE_SECRET_KEYS to the new one and those in use before, "
            "separated by commas; make one with: yaptide secrets new-key"
        )
    changed, total = secrets.rotate_secrets(place.backend.database, secrets.Vault(place.settings.secrets))
    print_message(f"{changed} of {total} secrets were encrypted anew; all of them fit the first key now")
