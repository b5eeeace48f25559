"""Users, for admins; and the first admin of an empty database."""

import pydantic
from fastapi import APIRouter, Response
from sqlmodel import Session

from director.api.answers import added
from director.api.envelope import Answer, ListAnswer, answer, page
from director.api.errors import documented
from director.api.idempotency import OnceDep
from director.api.principals import ADMIN_ONLY, TokensDep
from director.api.requests import StrictRoute
from director.api.state import PageDep, StoreDep
from director.api.tokens import Passwords
from director.domain.errors import AuthorizationError, ConflictError, NotFoundError
from director.domain.users import Role, User, UserCreate, UserUpdate
from director.settings import Settings, SettingsError, kept_secret
from director.store import locks, users
from director.store.engine import Store
from director.store.idempotency import Reply

router = APIRouter(
    prefix="/users", tags=["users"], route_class=StrictRoute, dependencies=[ADMIN_ONLY]
)

_READ = documented(AuthorizationError, NotFoundError)
_CHANGE = documented(AuthorizationError, NotFoundError, ConflictError)


@router.post(
    "",
    operation_id="users.create",
    status_code=201,
    response_model=Answer[User],
    responses=documented(AuthorizationError, ConflictError),
)
async def create_user(body: UserCreate, tokens: TokensDep, once: OnceDep) -> Response:
    """Add a user."""
    hashed = await tokens.passwords.hash(body.password)

    def create(session: Session) -> Reply:
        row = users.create_user(session, body.username, hashed, body.role)
        return added("users", User.model_validate(row))

    return await once.write(create)


@router.get("", operation_id="users.list", responses=documented(AuthorizationError))
async def list_users(store: StoreDep, query: PageDep) -> ListAnswer[User]:
    """List the users, newest first."""
    rows, pagination = await store.fetch(lambda session: users.list_users(session, query))
    return page([User.model_validate(row) for row in rows], pagination)


@router.get("/{user_id}", operation_id="users.get", responses=_READ)
async def get_user(user_id: str, store: StoreDep) -> Answer[User]:
    """Read a user."""
    row = await store.fetch(lambda session: users.get_user(session, user_id))
    return answer(User.model_validate(row))


@router.patch("/{user_id}", operation_id="users.patch", responses=_CHANGE)
@router.put("/{user_id}", operation_id="users.update", responses=_CHANGE)
async def update_user(
    user_id: str, body: UserUpdate, store: StoreDep, tokens: TokensDep
) -> Answer[User]:
    """Change the password or role, disable or enable; a change ends the user's logins."""
    hashed = await tokens.passwords.hash(body.password) if body.password else None
    row = await store.run(
        lambda session: users.update_user(
            session, user_id, password_hash=hashed, role=body.role, disabled=body.disabled
        )
    )
    return answer(User.model_validate(row))


def ensure_first_admin(store: Store, settings: Settings, passwords: Passwords) -> str | None:
    """Make the admin where there is no user yet; give what to tell people, once.

    The password is read or generated inside the transaction: of two processes that start at
    once one makes the admin, and the other finds it. Raises SettingsError."""
    with store.read() as session:
        if users.any_user(session):
            return None
    with store.write() as session:
        locks.hold(session, locks.Name.FIRST_ADMIN)
        if users.any_user(session):
            return None
        first = _first_admin(settings)
        users.create_user(session, first.username, passwords.hash_now(first.password), first.role)
    return _notice(first, settings)


def _first_admin(settings: Settings) -> UserCreate:
    password = settings.admin_password or kept_secret(settings.admin_password_file)
    try:
        return UserCreate(username=settings.admin_username, password=password, role=Role.ADMIN)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        name = f"DIRECTOR_ADMIN_{str(problem['loc'][0]).upper()}"
        raise SettingsError(f"{name}: {problem['msg']}") from None


def _notice(first: UserCreate, settings: Settings) -> str:
    if settings.admin_password:
        return f"made the first admin, {first.username}, with the password of the settings"
    return (
        f"made the first admin, {first.username}, password {first.password}"
        f" (kept in {settings.admin_password_file})"
    )
