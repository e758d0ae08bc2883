"""Bodies of the API of environment variables (`protocol.md` section 7.2)."""

from pydantic import Field

from runwell.core.payloads import Json
from runwell.core.protocol import ConnectAnswer
from runwell.core.schemas import ApiModel

#: What is shown of a value that is secret.
REDACTED = "<redacted>"


class VariableBody(ApiModel):
    """A new variable."""

    name: str
    value: str
    is_secret: bool = False


class VariableValueBody(ApiModel):
    """Another value of a variable."""

    value: str


class ImportVariablesBody(ApiModel):
    """Many variables; those that are there stay as they are unless it says `override`."""

    variables: dict[str, str]
    override: bool = False
    is_secret: bool = False


class VariableObject(ApiModel):
    """A variable; a value that is secret is shown as `<redacted>`."""

    name: str
    value: str
    is_secret: bool = False


class AllVariables(ApiModel):
    """Every variable of an environment with its value, as its runs get them."""

    variables: dict[str, str] = Field(default_factory=dict[str, str], repr=False)
    version: int = 0


class ConnectedAnswer(ConnectAnswer):
    """Who the supervisor is, and the environment variables of its runs."""

    variables: AllVariables = Field(default_factory=AllVariables)


class Success(ApiModel):
    """It was done."""

    success: bool = True


class VariablesErrorBody(ApiModel):
    """Why variables were refused, each by its name."""

    error: str
    variable_errors: list[dict[str, Json]] = Field(default_factory=list[dict[str, Json]])
