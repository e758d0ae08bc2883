"""Which requests may reach a page at all: against other web sites that a browser has open.

A dashboard on this machine has no password, so it must not answer to a name that somebody else's
DNS points at 127.0.0.1 (DNS rebinding). And no form of another site may change anything here: a
browser says where a request comes from (`Sec-Fetch-Site`, `Origin`), and we insist on it.
"""

from urllib.parse import urlsplit

from starlette.requests import Request

from runwell.core.errors import RequestError

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE_METHODS = frozenset({"GET", "HEAD"})
_OUR_SITES = frozenset({"same-origin", "none"})


def check_host(request: Request) -> None:
    """Refuse a request that reached this machine under a name that isn't its own.

    Raises RequestError 421.
    """
    name = _host_name(request.headers.get("host", ""))
    if name not in _LOCAL_NAMES and not name.endswith(".localhost"):
        raise RequestError(
            421,
            f"this dashboard answers on this machine only, and not to the name {name[:100]!r}: "
            "open it as localhost",
        )


def check_origin(request: Request) -> None:
    """Refuse a change that another web site asks for; raises RequestError 403."""
    if request.method in _SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None:
        is_ours = site in _OUR_SITES
    elif origin is not None:
        is_ours = urlsplit(origin).netloc == request.headers.get("host")
    else:
        # No browser: those say at least one of the two with a POST.
        is_ours = True
    if not is_ours:
        raise RequestError(403, "another web site asked for this change: it was not made")


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
