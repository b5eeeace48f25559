"""Packages are fetched without touching what is installed."""

import subprocess

import pytest

from director.machine import apt


@pytest.mark.docker
def test_a_closure_is_downloaded_as_if_nothing_were_installed(tmp_path):
    if not apt.available():
        pytest.skip("no apt on this system: images are pulled here, never composed")
    found = apt.download(["mawk"], tmp_path / "apt", print)
    names = {path.name.split("_")[0] for path in found}
    assert {"mawk", "libc6"} <= names


@pytest.mark.docker
def test_a_package_that_does_not_exist_is_named_in_the_error(tmp_path):
    if not apt.available():
        pytest.skip("no apt on this system: images are pulled here, never composed")
    with pytest.raises(apt.SetUpError, match="no-such-package-of-ours"):
        apt.download(["no-such-package-of-ours"], tmp_path / "apt", print)


def test_downloads_keep_away_from_the_systems_own_package_state(tmp_path):
    settings = apt.aside(tmp_path)
    assert "Dir::State::status=/dev/null" in settings
    assert f"Dir::Cache={tmp_path}" in settings
    shown = (
        subprocess.run(
            ["apt-config", *settings, "dump", "Dir::Cache::archives"],
            capture_output=True,
            text=True,
            check=False,
        )
        if apt.available()
        else None
    )
    assert shown is None or str(tmp_path) in shown.stdout
