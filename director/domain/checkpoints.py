"""Checkpoints: files and state of a run at one step boundary, under one id."""

from enum import StrEnum

from director.domain.base import Json, Shape
from director.domain.times import Moment


class CheckpointStatus(StrEnum):
    """Whether a checkpoint can be used."""

    CREATING = "creating"
    READY = "ready"
    FAILED = "failed"


class Part(Shape):
    """One part of a checkpoint: the hash by which the blob store knows it."""

    hash: str
    bytes: int
    files: int | None = None


class Manifest(Shape):
    """What a checkpoint consists of; written last, so that it names only what is there."""

    version: int = 1
    filesystem: Part
    state: Part


class Checkpoint(Shape):
    """A checkpoint as the API shows it."""

    id: str
    session_id: str
    owner_id: str
    workflow_id: str | None
    run_id: str | None
    step: str | None
    name: str
    description: str | None
    status: CheckpointStatus
    manifest: Json | None
    skipped: list[Json]
    created_at: Moment
