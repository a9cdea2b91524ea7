"""Unsafe settings are rejected, and stored files are accessible only to their owner."""

import stat

import pytest

from yaptide.application import make_backend
from yaptide.domain.errors import InvalidInput
from yaptide.settings import Settings, load_settings


@pytest.mark.parametrize("origins", ["*", "https://ui.example.org,*", "https://.*", "http://a/b", "ui.example.org"])
def test_an_origin_is_one_front_end_and_no_pattern(monkeypatch, origins):
    monkeypatch.setenv("YAPTIDE_CORS_ORIGINS", origins)
    with pytest.raises(InvalidInput, match=r"YAPTIDE_CORS_ORIGINS: .* is not an origin"):
        load_settings()


def test_origins_are_taken_one_by_one(monkeypatch):
    monkeypatch.setenv("YAPTIDE_CORS_ORIGINS", " https://ui.example.org, http://localhost:3000 ,http://[::1]:3000/,")
    assert load_settings().origins == ["https://ui.example.org", "http://localhost:3000", "http://[::1]:3000"]


@pytest.mark.parametrize(
    "prefix", ["yaptide", "//evil.example", "/a b", "/a/../b", "/a;b", "/ä", '/a"><b', "https://x/y"]
)
def test_a_path_prefix_is_a_plain_path(monkeypatch, prefix):
    monkeypatch.setenv("YAPTIDE_PATH_PREFIX", prefix)
    with pytest.raises(InvalidInput, match=r"YAPTIDE_PATH_PREFIX: .*use a path such as /yaptide"):
        load_settings()


@pytest.mark.parametrize(("prefix", "taken"), [("", ""), ("/", ""), ("/yaptide/", "/yaptide"), ("/a/b.c", "/a/b.c")])
def test_a_path_prefix_ends_without_a_slash(monkeypatch, prefix, taken):
    monkeypatch.setenv("YAPTIDE_PATH_PREFIX", prefix)
    assert load_settings().path_prefix == taken


def test_the_data_folder_is_for_its_owner_only(tmp_path):
    settings = Settings(_env_file=None, data_dir=tmp_path / "new" / "data")
    make_backend(settings).database.close()
    assert stat.S_IMODE(settings.data_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["a?b", "50%25", "x;y#z", "ä ö", "a@b:c"])
def test_the_database_is_in_the_data_folder_whatever_that_is_called(tmp_path, name):
    settings = Settings(_env_file=None, data_dir=tmp_path / name)
    backend = make_backend(settings)
    with backend.database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE x (y)")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in settings.data_dir.glob("yaptide.db*")}
    backend.database.close()
    assert modes == dict.fromkeys(("yaptide.db", "yaptide.db-wal", "yaptide.db-shm"), 0o600)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_of_settings_that_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("YAPTIDE_ENV_FILE", str(tmp_path / "missing.env"))
    with pytest.raises(InvalidInput, match=r"missing\.env"):
        load_settings()


@pytest.mark.parametrize(
    ("base", "issuers"),
    [
        (
            "https://sso.example.org",
            ["https://sso.example.org/realms/R%2F1", "https://sso.example.org/auth/realms/R%2F1"],
        ),
        ("https://sso.example.org/auth/", ["https://sso.example.org/auth/realms/R%2F1"]),
    ],
)
def test_the_realm_is_below_auth_or_not(monkeypatch, base, issuers):
    for name, value in {"BASE_URL": base, "REALM": "R/1", "CLIENTS": "ui"}.items():
        monkeypatch.setenv(f"KEYCLOAK_{name}", value)
    assert load_settings().keycloak.issuers == tuple(issuers)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"KEYCLOAK_BASE_URL": "http://sso.example.org"}, "https://"),
        ({"KEYCLOAK_BASE_URL": "http://localhost.example.org"}, "https://"),
        ({"KEYCLOAK_ISSUER": "https://user:password@sso.example.org"}, "https://"),
        ({"CERT_AUTH_URL": "file:///etc/passwd"}, "https://"),
        ({"KEYCLOAK_BASE_URL": "https://sso.example.org"}, "KEYCLOAK_REALM"),
        ({"KEYCLOAK_REALM": "R"}, "KEYCLOAK_BASE_URL"),
        ({"KEYCLOAK_ISSUER": "https://sso.example.org/realms/R"}, "KEYCLOAK_CLIENTS"),
        ({"KEYCLOAK_REQUIRED_CLAIM": "PLG_YAPTIDE_ACCESS"}, "plgridAccessServices="),
        (
            {
                "KEYCLOAK_ISSUER": "https://sso.example.org/realms/R",
                "KEYCLOAK_CLIENTS": "ui",
                "CERT_AUTH_URL": "https://ca.example.org",
            },
            "YAPTIDE_SECRET_KEYS",
        ),
    ],
)
def test_half_a_keycloak_or_one_that_anybody_can_be_is_refused(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidInput, match=message):
        load_settings().keycloak  # noqa: B018 - what is read is checked
