"""Who sees what: a resource belongs to the principal that made it; admins see all."""

from director.domain.users import Principal


def visible(principal: Principal, owner_id: str) -> bool:
    """Whether the principal may know that a resource of that owner exists."""
    return principal.sees_all or principal.user_id == owner_id
