"""The body of an answer to a request that was one too many (`protocol.md` section 1.8)."""

from runwell.core.schemas import ApiModel


class RateLimitBody(ApiModel):
    """Too many requests; `reset` is when more are taken, in milliseconds since 1970."""

    error: str
    title: str = "Rate Limit Exceeded"
    status: int = 429
    type: str = "https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/429"
    detail: str
    reset: int
    limit: int
    remaining: int = 0
    seconds_until_reset: int
