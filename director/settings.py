"""Settings, read once by the roots from `DIRECTOR_*` and passed down as plain values."""

import json
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Literal

from director.blobs.places import check_url as check_blob_url
from director.domain import networks
from director.domain.addresses import Range
from director.domain.alerts import AlertRules
from director.domain.git import GitTerms
from director.endpoint.places import Address

Mode = Literal["local", "production"]
LogFormat = Literal["console", "json"]


_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - which are refused


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names the variable and what to do."""


@dataclass(frozen=True)
class Settings:
    """Where everything is and how large it may be. Secrets are kept out of `repr`."""

    mode: Mode
    home: Path
    host: str
    port: int
    database_url: str = field(repr=False)
    blob_url: str
    """Where contents of files and outputs lie: `file:///PATH` or `s3://BUCKET/PREFIX`."""
    temporal_address: str
    temporal_namespace: str
    temporal_tls: bool
    temporal_api_key: str | None = field(repr=False)
    secret_keys: tuple[str, ...] = field(repr=False)
    admin_username: str
    admin_password: str | None = field(repr=False)
    sandbox_image: str | None
    image_aliases: Mapping[str, str]
    places: int
    sandboxes: int
    sandbox_quota: int
    """Sandboxes that one user may have at once."""
    run_quota: int
    """Runs of one user that may wait for their first step."""
    network_quota: int
    """Networks that one user may have."""
    network_pool: IPv4Network
    """Where subnets are taken from that nobody named."""
    sandbox_disk_mib: int | None
    """How large the disk of a sandbox is where nobody bounds it; None: as the host's."""
    allowed_images: tuple[str, ...]
    """Patterns of the images that may be asked for; none: any."""
    memory_mib: int
    workers: int
    worker_address: Address | None
    """Where the API reaches the workers of this host; None: at sockets in the home."""
    event_retention: timedelta | None
    """How long events are kept; None: for ever."""
    output_retention: timedelta | None
    """How long what a run's steps wrote is kept after its end; None: for ever."""
    alerts: AlertRules
    git: GitTerms
    cors_origins: tuple[str, ...]
    log_format: LogFormat

    @property
    def admin_password_file(self) -> Path:
        """Where a generated admin password is kept, mode 0600."""
        return self.home / "admin-password"


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check all settings. Raises SettingsError naming the variable that is wrong."""
    env = os.environ if environ is None else environ
    mode = _choice(env, "DIRECTOR_MODE", ("local", "production"), "local")
    home = Path(env.get("DIRECTOR_HOME") or ".director").absolute()
    return Settings(
        mode="production" if mode == "production" else "local",
        home=home,
        host=env.get("DIRECTOR_HOST") or "127.0.0.1",
        port=_integer(env, "DIRECTOR_PORT", 8000, 1, 65535),
        database_url=_database_url(env, home),
        blob_url=_blob_url(env, home),
        temporal_address=env.get("DIRECTOR_TEMPORAL_ADDRESS") or "127.0.0.1:7233",
        temporal_namespace=env.get("DIRECTOR_TEMPORAL_NAMESPACE") or "director",
        temporal_tls=_flag(env, "DIRECTOR_TEMPORAL_TLS"),
        temporal_api_key=env.get("DIRECTOR_TEMPORAL_API_KEY") or None,
        secret_keys=_secret_keys(env, mode, home),
        admin_username=env.get("DIRECTOR_ADMIN_USERNAME") or "admin",
        admin_password=_secret(env, "DIRECTOR_ADMIN_PASSWORD"),
        sandbox_image=env.get("DIRECTOR_SANDBOX_IMAGE") or None,
        image_aliases=_mapping(env, "DIRECTOR_IMAGE_ALIASES"),
        places=_integer(env, "DIRECTOR_PLACES", 8, 1, 1000),
        sandboxes=_integer(env, "DIRECTOR_SANDBOXES", 64, 1, 10_000),
        sandbox_quota=_integer(env, "DIRECTOR_SANDBOX_QUOTA", 100, 1, 1_000_000),
        run_quota=_integer(env, "DIRECTOR_RUN_QUOTA", 1000, 1, 1_000_000),
        network_quota=_integer(env, "DIRECTOR_NETWORK_QUOTA", networks.QUOTA, 1, 1_000_000),
        network_pool=_pool(env),
        sandbox_disk_mib=_disk(env),
        allowed_images=_list(env, "DIRECTOR_ALLOWED_IMAGES"),
        memory_mib=_integer(env, "DIRECTOR_MEMORY", _promised_mib(), 64, 2**30),
        workers=_integer(env, "DIRECTOR_WORKERS", 1, 1, 64),
        worker_address=_address(env, "DIRECTOR_WORKER_ADDRESS"),
        event_retention=_days(env, "DIRECTOR_EVENT_RETENTION", 7),
        output_retention=_days(env, "DIRECTOR_OUTPUT_RETENTION", 30),
        alerts=_alerts(env),
        git=_git(env),
        cors_origins=_list(env, "DIRECTOR_CORS_ORIGINS"),
        log_format="json" if _log_format(env) == "json" else "console",
    )


def _alerts(env: Mapping[str, str]) -> AlertRules:
    usual = AlertRules()
    window = int(usual.window.total_seconds())
    return AlertRules(
        window=timedelta(seconds=_integer(env, "DIRECTOR_ALERT_WINDOW", window, 10, 86_400)),
        failed_logins=_integer(
            env, "DIRECTOR_ALERT_FAILED_LOGINS", usual.failed_logins, 0, 1_000_000
        ),
        blocked=_integer(env, "DIRECTOR_ALERT_BLOCKED", usual.blocked, 0, 1_000_000),
        oom_kills=_integer(env, "DIRECTOR_ALERT_OOM_KILLS", usual.oom_kills, 0, 1_000_000),
        error_rate=_integer(env, "DIRECTOR_ALERT_ERROR_RATE", usual.error_rate, 0, 100),
    )


def _pool(env: Mapping[str, str]) -> IPv4Network:
    try:
        return networks.read_pool(env.get("DIRECTOR_NETWORK_POOL") or str(networks.POOL))
    except ValueError as error:
        raise SettingsError(f"DIRECTOR_NETWORK_POOL: {error}") from None


def _disk(env: Mapping[str, str]) -> int | None:
    mib = _integer(env, "DIRECTOR_SANDBOX_DISK", 0, 0, 1024 * 1024)
    if 0 < mib < 16:
        raise SettingsError(f"DIRECTOR_SANDBOX_DISK: {mib} MiB hold nothing: take 16, or 0 for any")
    return mib or None


def _git(env: Mapping[str, str]) -> GitTerms:
    return GitTerms(
        image=env.get("DIRECTOR_GIT_IMAGE") or None,
        allowed=_ranges(env, "DIRECTOR_GIT_ALLOWED_CIDRS"),
        ca_file=_certificates(env, "DIRECTOR_GIT_CA_FILE"),
    )


def _address(env: Mapping[str, str], name: str) -> Address | None:
    if not (text := env.get(name)):
        return None
    try:
        address = Address.parse(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from None
    if address.host in _EVERYWHERE:
        raise SettingsError(f"{name}: {address.host} is every address: name the one for the API")
    return address


def _promised_mib() -> int:
    """Limits are ceilings that are rarely used together: they may add up to four machines."""
    return 4 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def _database_url(env: Mapping[str, str], home: Path) -> str:
    url = env.get("DIRECTOR_DATABASE_URL") or f"sqlite:///{home / 'director.db'}"
    if url.startswith("sqlite:///"):
        return url
    from director.store.postgres import check_url  # loads its driver

    try:
        check_url(url)
    except ValueError as error:
        raise SettingsError(f"DIRECTOR_DATABASE_URL: {error}") from None
    return url


def _blob_url(env: Mapping[str, str], home: Path) -> str:
    url = env.get("DIRECTOR_BLOB_URL") or (home / "blobs").as_uri()
    try:
        check_blob_url(url)
    except ValueError as error:
        raise SettingsError(f"DIRECTOR_BLOB_URL: {error}") from None
    return url


def _secret_keys(env: Mapping[str, str], mode: str, home: Path) -> tuple[str, ...]:
    keys = _list(env, "DIRECTOR_SECRET_KEY")
    if not keys and mode == "production":
        raise SettingsError(
            "DIRECTOR_SECRET_KEY is not set: production mode needs a key of at least 32 bytes"
            " (several, the signing one first, separated by commas)"
        )
    keys = keys or (kept_secret(home / "secret-key"),)
    if any(len(key.encode()) < 32 for key in keys):
        raise SettingsError("DIRECTOR_SECRET_KEY: each key must have at least 32 bytes")
    return keys


def private_home(home: Path) -> None:
    """Make the home if it is missing and close it to others: it holds values of environments.

    Raises SettingsError where that cannot be done."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        if home.stat().st_mode & stat.S_ISVTX:
            raise SettingsError(f"DIRECTOR_HOME: {home} is everybody's; name a folder below it")
        home.chmod(0o700)
    except OSError as error:
        message = f"DIRECTOR_HOME: cannot make {home} a private folder: {error.strerror}"
        raise SettingsError(message) from error


def kept_secret(path: Path) -> str:
    """Read a secret of our own, made at the first call and kept with mode 0600.

    It appears whole or not at all, so that two processes that start at once share one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=path.parent) as file:  # made with mode 0600
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(file.name, path)
    return path.read_text().strip()


def _secret(env: Mapping[str, str], name: str) -> str | None:
    if env.get(name):
        return env[name]
    if not (path := env.get(f"{name}_FILE")):
        return None
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise SettingsError(f"{name}_FILE: cannot read {path}: {error.strerror}") from error


def _integer(env: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise SettingsError(f"{name}: {text!r} is not a whole number from {low} to {high}")
    return int(text)


def _days(env: Mapping[str, str], name: str, default: int) -> timedelta | None:
    """A number of days; 0 stands for ever."""
    return timedelta(days=_integer(env, name, default, 0, 36_500)) or None


def _choice(env: Mapping[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    text = env.get(name) or default
    if text not in choices:
        raise SettingsError(f"{name}: {text!r} is none of {', '.join(choices)}")
    return text


def _log_format(env: Mapping[str, str]) -> str:
    default = "json" if env.get("DIRECTOR_MODE") == "production" else "console"
    return _choice(env, "DIRECTOR_LOG_FORMAT", ("console", "json"), default)


def _flag(env: Mapping[str, str], name: str) -> bool:
    return _choice(env, name, ("0", "1", "false", "true"), "false") in ("1", "true")


def _list(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in env.get(name, "").split(",") if part.strip())


def _ranges(env: Mapping[str, str], name: str) -> tuple[Range, ...]:
    try:
        return tuple(ip_network(part) for part in _list(env, name))
    except ValueError as error:
        raise SettingsError(f"{name}: {error}; wanted ranges such as 10.1.0.0/16") from None


def _certificates(env: Mapping[str, str], name: str) -> Path | None:
    if not env.get(name):
        return None
    path = Path(env[name]).absolute()
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise SettingsError(f"{name}: cannot read {path}: {error}") from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise SettingsError(f"{name}: {path} has no certificate in PEM")
    return path


def _mapping(env: Mapping[str, str], name: str) -> dict[str, str]:
    try:
        value = json.loads(env.get(name) or "{}")
    except ValueError as error:
        raise SettingsError(f"{name}: not JSON: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise SettingsError(f"{name}: wanted a JSON object of strings")
    return value
