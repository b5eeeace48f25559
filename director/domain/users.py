"""People and agents that call the API, and what they may do."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from director.domain.base import Body, Flag, Shape, Text
from director.domain.times import Moment


class Role(StrEnum):
    """What a principal may do: an admin everything, an operator changes, a viewer reads."""

    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"


class Principal(Shape):
    """Who makes a request, and with which login."""

    user_id: str
    username: str
    role: Role
    login_id: str

    @property
    def sees_all(self) -> bool:
        """Whether resources of other owners are visible."""
        return self.role is Role.ADMIN

    @property
    def changes(self) -> bool:
        """Whether the principal may change things."""
        return self.role is not Role.VIEWER


Username = Annotated[str, Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$")]
Password = Annotated[Text, Field(min_length=8, max_length=1024)]


class UserCreate(Body):
    """A user to add."""

    username: Username
    password: Password
    role: Role = Role.OPERATOR


class UserUpdate(Body):
    """What to change of a user; absent means unchanged. Each revokes the user's logins."""

    password: Password | None = None
    role: Role | None = None
    disabled: Flag | None = None


class User(Shape):
    """A user as the API shows it."""

    id: str
    username: str
    role: Role
    disabled: bool
    created_at: Moment
    updated_at: Moment


class Credentials(Body):
    """The body of a login."""

    username: Annotated[str, Field(max_length=1024)]
    password: Annotated[str, Field(max_length=1024)]


class RefreshBody(Body):
    """The body of a refresh; the token may also come as Bearer."""

    refresh_token: Annotated[str, Field(max_length=1024)] | None = None


class UserBrief(Shape):
    """The user of a token pair."""

    id: str
    username: str
    role: Role


class TokenPair(Shape):
    """What a login or a refresh gives. Durations are seconds, as in OAuth 2."""

    token: str
    access_token: str
    refresh_token: str
    token_type: str = "Bearer"  # noqa: S105 - a scheme, no secret
    expires_in: int
    refresh_expires_in: int
    user: UserBrief
