from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from director.blobs.s3 import S3Blobs
from director.blobs.store import Blobs, LocalBlobs

SECRET = "canary-of-the-bucket-77"


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs", fsync=False)


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A server that speaks as S3 does, with a bucket named `bucket`; gives its address."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    access = {"aws_access_key_id": "key", "aws_secret_access_key": SECRET}
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=address, **access)
    client.create_bucket(Bucket="bucket")
    client.close()
    yield address
    server.stop()


@pytest.fixture
def bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Blobs:
    """Blobs in the bucket, below a prefix of their own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    return S3Blobs("bucket", tmp_path.name)


@pytest.fixture(params=["local", "s3"])
def any_blobs(request: pytest.FixtureRequest) -> Blobs:
    """Each kind of store."""
    name = {"local": "blobs", "s3": "bucket"}[request.param]
    found: Blobs = request.getfixturevalue(name)
    return found
