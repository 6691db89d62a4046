"""The reward server over HTTP (python -m rewards.server)."""

from ipaddress import ip_address

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from conf.http_access import is_loopback
from conf.passwords import VariableName
from conf.schema.base import PathText, Section, Word
from conf.schema.reward import RewardConfig


class RewardHttpConfig(Section):
    databases: PathText
    """Folder holding <db_id>/<db_id>.sqlite; other *.sqlite files beside it are further instances."""
    host: Word = "127.0.0.1"
    """Address to listen on. Anything but loopback needs a bearer token."""
    port: int = Field(default=8400, ge=1, le=65535)
    token_variable: VariableName = "QUORUM_REWARD_TOKEN"
    """Environment variable that holds the bearer token; when it is set, callers must send it."""
    max_request_mib: PositiveInt = 64
    header_timeout_s: PositiveFloat = 20.0
    """Longest time that a client may take for a request's headers."""
    body_timeout_s: PositiveFloat = 60.0
    """Longest time that a client may take for a request's body."""
    max_concurrent_requests: PositiveInt = 64
    reward: RewardConfig

    @field_validator("host")
    @classmethod
    def _is_address(cls, host: str) -> str:
        if host != "localhost":
            try:
                ip_address(host)
            except ValueError:
                raise ValueError(f"{host!r} is no IP address: write 127.0.0.1, ::1 or 0.0.0.0") from None
        return host

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)
