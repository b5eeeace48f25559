from pathlib import Path

import pytest

from director.blobs.store import LocalBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs", fsync=False)
