"""Settings that are wrong are refused by name, and secrets are never made up in production."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from director.settings import SettingsError, kept_secret, read_settings

KEY = "k" * 32


def test_production_does_not_start_without_a_key() -> None:
    with pytest.raises(SettingsError, match="DIRECTOR_SECRET_KEY"):
        read_settings({"DIRECTOR_MODE": "production"})


def test_a_short_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="32 bytes"):
        read_settings({"DIRECTOR_SECRET_KEY": f"{KEY},short"})


def test_several_keys_come_in_the_order_in_which_they_sign_and_verify() -> None:
    settings = read_settings({"DIRECTOR_SECRET_KEY": f"{KEY}, {'o' * 40}"})
    assert settings.secret_keys == (KEY, "o" * 40)


def test_local_mode_keeps_a_key_of_its_own_that_only_the_owner_reads(tmp_path: Path) -> None:
    first, again = (read_settings({"DIRECTOR_HOME": str(tmp_path / "home")}) for _ in range(2))

    assert first.secret_keys == again.secret_keys
    assert stat.S_IMODE((tmp_path / "home/secret-key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


def test_processes_that_start_at_once_share_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        secrets = set(pool.map(kept_secret, [tmp_path / "secret"] * 64))

    assert len(secrets) == 1
    assert len(secrets.pop()) > 40


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DIRECTOR_PORT", "65536"),
        ("DIRECTOR_PORT", "-1"),
        ("DIRECTOR_PORT", "8e3"),
        ("DIRECTOR_MODE", "prod"),
        ("DIRECTOR_LOG_FORMAT", "xml"),
        ("DIRECTOR_IMAGE_ALIASES", "[]"),
        ("DIRECTOR_IMAGE_ALIASES", "{"),
        ("DIRECTOR_ADMIN_PASSWORD_FILE", "/nonexistent/file"),
        ("DIRECTOR_TEMPORAL_TLS", "maybe"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read_settings({"DIRECTOR_SECRET_KEY": KEY, name: value})


def test_secrets_stay_out_of_the_representation(tmp_path: Path) -> None:
    environ = {"DIRECTOR_SECRET_KEY": KEY, "DIRECTOR_ADMIN_PASSWORD": "hidden-password"}

    shown = repr(read_settings({**environ, "DIRECTOR_HOME": str(tmp_path)}))

    assert KEY not in shown
    assert "hidden-password" not in shown
