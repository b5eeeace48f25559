"""Archives: uploaded files from which a run's workspace is filled."""

from director.domain.base import Shape
from director.domain.times import Moment


class Archive(Shape):
    """An uploaded tar or zip; `total_bytes` counts the unpacked files."""

    id: str
    owner_id: str
    name: str | None
    file_count: int
    total_bytes: int
    created_at: Moment
