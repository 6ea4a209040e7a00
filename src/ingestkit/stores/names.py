"""Which names objects of a lake may have, whatever it lies in."""

from ingestkit.errors import LakeError

INFLIGHT = "_inflight"


def published(name: str) -> str:
    """The name, of an object that readers may see."""
    if name.split("/", maxsplit=1)[0] == INFLIGHT:
        raise LakeError(f"{name!r} is the name of an object in flight, which nobody may read or publish under")
    return checked(name)


def inflight(name: str) -> str:
    """The name, of an object that nobody sees."""
    if not name.startswith(f"{INFLIGHT}/"):
        raise LakeError(f"{name!r} is no name of an object in flight")
    return checked(name)


def checked(name: str) -> str:
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise LakeError(f"{name!r} is no name of an object in a lake")
    return name
