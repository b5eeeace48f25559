"""Settings that are wrong are refused by name, and secrets are never made up in production."""

import os
import stat
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from support.server import free_port

from director.settings import SettingsError, kept_secret, private_home, read_settings
from director.store.database import AwayError
from director.store.engine import Store

KEY = "k" * 32


def test_production_does_not_start_without_a_key() -> None:
    with pytest.raises(SettingsError, match="DIRECTOR_SECRET_KEY"):
        read_settings({"DIRECTOR_MODE": "production"})


def test_blobs_are_in_the_home_or_where_a_url_says_that_holds_no_secret(tmp_path: Path) -> None:
    home = {"DIRECTOR_HOME": str(tmp_path)}
    assert read_settings(home).blob_url == (tmp_path / "blobs").as_uri()
    there = home | {"DIRECTOR_BLOB_URL": "s3://bucket/prefix"}
    assert read_settings(there).blob_url == "s3://bucket/prefix"
    wrong = home | {"DIRECTOR_BLOB_URL": "s3://key:canary77@bucket"}
    with pytest.raises(SettingsError, match="DIRECTOR_BLOB_URL: it takes no credentials") as raised:
        read_settings(wrong)
    assert "canary77" not in str(raised.value)


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


def test_from_where_repositories_are_cloned_is_read_and_checked(tmp_path: Path) -> None:
    ca, empty = tmp_path / "ca.pem", tmp_path / "empty.pem"
    ca.write_text("-----BEGIN CERTIFICATE-----\n")
    empty.write_text("")
    environ = {"DIRECTOR_GIT_ALLOWED_CIDRS": "10.1.0.0/16, fd12::/64"}
    git = read_settings(environ | {"DIRECTOR_GIT_CA_FILE": str(ca), "DIRECTOR_GIT_IMAGE": "i"}).git
    assert (list(map(str, git.allowed)), git.ca_file, git.image) == (
        ["10.1.0.0/16", "fd12::/64"],
        ca,
        "i",
    )
    for wrong in (
        {"DIRECTOR_GIT_ALLOWED_CIDRS": "10.1.0.1/16"},
        {"DIRECTOR_GIT_ALLOWED_CIDRS": "git.example.com"},
        {"DIRECTOR_GIT_CA_FILE": str(tmp_path / "none.pem")},
        {"DIRECTOR_GIT_CA_FILE": str(empty)},
    ):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            read_settings(wrong)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql://u:canary77@host/db", "are possible"),
        ("sqlite://canary77", "are possible"),
        ("postgresql+psycopg://u:canary77@host/db", "are possible"),
        ("postgresql://u:canary77%zz@host/db", "cannot be read"),
        ("postgresql://u:canary77/x@host/db", "cannot be read"),
        ("postgresql://u:canary77@host/db?nosuch=1", "cannot be read"),
        ("postgresql://u:canary77@host:5432", "names no database"),
    ],
)
def test_a_database_that_is_none_is_refused_without_its_password(url: str, why: str) -> None:
    with pytest.raises(SettingsError, match="DIRECTOR_DATABASE_URL") as refused:
        read_settings({"DIRECTOR_DATABASE_URL": url})
    assert why in str(refused.value)
    assert "canary77" not in "".join(traceback.format_exception(refused.value))


def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    port = free_port()
    url = f"postgresql://ann:canary77@127.0.0.1:{port}/director?options=-cgeqo%3Doff"
    settings = read_settings({"DIRECTOR_DATABASE_URL": url, "DIRECTOR_HOME": str(tmp_path)})
    store = Store(settings.database_url)
    with pytest.raises(AwayError) as away:
        store.wait(0, lambda error: None)
    assert "database director on 127.0.0.1 does not answer" in str(away.value)
    said = "".join(traceback.format_exception(away.value))
    assert "canary77" not in f"{settings!r} {said} {store.engine.url!r}"
    store.close()


@pytest.mark.parametrize(
    ("pool", "why"),
    [
        ("10.213.0.1/16", "host bits"),
        ("8.0.0.0/7", "/8 to /20"),
        ("10.213.0.0/21", "/8 to /20"),
        ("172.0.0.0/8", "not private"),
        ("fd00::/16", "no IPv4 range"),
        ("here", "no IPv4 range"),
    ],
)
def test_a_pool_that_is_no_private_range_is_refused_by_its_name(pool: str, why: str) -> None:
    with pytest.raises(SettingsError, match=f"DIRECTOR_NETWORK_POOL: .*{why}"):
        read_settings({"DIRECTOR_NETWORK_POOL": pool, "DIRECTOR_SECRET_KEY": KEY})


@pytest.mark.parametrize(("given", "mib"), [("0", None), ("16", 16), ("15", "16"), ("x", "x")])
def test_a_disk_is_as_large_as_something_needs_or_not_bounded(
    given: str, mib: int | str | None
) -> None:
    environ = {"DIRECTOR_SANDBOX_DISK": given, "DIRECTOR_SECRET_KEY": KEY}
    if isinstance(mib, str):
        with pytest.raises(SettingsError, match=f"DIRECTOR_SANDBOX_DISK: .*{mib}"):
            read_settings(environ)
    else:
        assert read_settings(environ).sandbox_disk_mib == mib


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_home_is_made_for_its_owner_only(tmp_path: Path) -> None:
    private_home(tmp_path / "new/home")
    assert mode(tmp_path / "new/home") == 0o700


def test_a_home_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    private_home(tmp_path)
    assert mode(tmp_path) == 0o700


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_home_that_cannot_be_one_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=f"DIRECTOR_HOME: .*{path}"):
        private_home(tmp_path / path)


def test_a_folder_that_is_everybodys_is_no_home(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(SettingsError, match="DIRECTOR_HOME"):
        private_home(tmp_path)
    assert mode(tmp_path) == 0o1777


@pytest.mark.parametrize("before", [None, 0o755])
def test_the_api_serves_in_production_from_a_home_that_is_private(
    tmp_path: Path, before: int | None
) -> None:
    home, port = tmp_path / "home", free_port()
    if before is not None:
        home.mkdir(before)
    given = {
        "DIRECTOR_MODE": "production",
        "DIRECTOR_HOME": str(home),
        "DIRECTOR_PORT": str(port),
        "DIRECTOR_SECRET_KEY": KEY,
        "DIRECTOR_ADMIN_PASSWORD": "correct horse battery",
    }
    command, environ = [sys.executable, "-m", "director.api"], {**os.environ, **given}
    log = tmp_path / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(command, env=environ, stdout=out, stderr=out) as api,
    ):
        try:
            assert answers(api, f"http://127.0.0.1:{port}/healthz"), log.read_text()
        finally:
            api.terminate()

    assert mode(home) == 0o700
    assert (home / "director.db").exists()


def answers(process: subprocess.Popen[bytes], url: str) -> bool:
    """Wait until a process answers; False where it ends instead."""
    while process.poll() is None:
        try:
            return httpx.get(url, trust_env=False, verify=False).is_success
        except httpx.TransportError:
            time.sleep(0.05)
    return False


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
        ("DIRECTOR_SANDBOXES", "0"),
        ("DIRECTOR_MEMORY", "63"),
        ("DIRECTOR_MEMORY", "8GiB"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read_settings({"DIRECTOR_SECRET_KEY": KEY, name: value})


def test_a_host_promises_four_times_its_memory_unless_told_otherwise() -> None:
    kib = int(Path("/proc/meminfo").read_text().split()[1])

    default = read_settings({"DIRECTOR_SECRET_KEY": KEY})
    given = read_settings({"DIRECTOR_SECRET_KEY": KEY, "DIRECTOR_MEMORY": "512"})

    assert abs(default.memory_mib - 4 * kib // 1024) <= 4
    assert (default.sandboxes, given.memory_mib) == (64, 512)


def test_the_address_of_a_worker_is_one_that_the_api_can_reach() -> None:
    named = {"DIRECTOR_SECRET_KEY": KEY, "DIRECTOR_WORKER_ADDRESS": "10.0.0.5:7400"}
    assert read_settings(named).worker_address == ("10.0.0.5", 7400)
    for wrong in ("10.0.0.5", ":7400", "0.0.0.0:7400", "[::]:7400"):
        with pytest.raises(SettingsError, match="DIRECTOR_WORKER_ADDRESS"):
            read_settings({**named, "DIRECTOR_WORKER_ADDRESS": wrong})


def test_secrets_stay_out_of_the_representation(tmp_path: Path) -> None:
    environ = {"DIRECTOR_SECRET_KEY": KEY, "DIRECTOR_ADMIN_PASSWORD": "hidden-password"}

    shown = repr(read_settings({**environ, "DIRECTOR_HOME": str(tmp_path)}))

    assert KEY not in shown
    assert "hidden-password" not in shown


def test_alert_rules_have_thresholds_of_their_own_and_can_be_off() -> None:
    env = {"DIRECTOR_ALERT_WINDOW": "60", "DIRECTOR_ALERT_BLOCKED": "0"}
    rules = read_settings({"DIRECTOR_SECRET_KEY": KEY, **env}).alerts
    assert (rules.window, rules.blocked, rules.failed_logins) == (timedelta(minutes=1), 0, 5)
    for name, value in (("WINDOW", "5"), ("ERROR_RATE", "101"), ("OOM_KILLS", "-1")):
        with pytest.raises(SettingsError, match=f"DIRECTOR_ALERT_{name}"):
            read_settings({"DIRECTOR_SECRET_KEY": KEY, f"DIRECTOR_ALERT_{name}": value})
