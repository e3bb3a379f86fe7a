"""How the trainer gets in where services are protected: the same options as those of the other commands."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from palate.access import HELP, Access
from palate.settings import Group


class AccessFields(Group):
    """Certificates and a token; files alone, so that no secret stands in a configuration."""

    ca: Path | None = Field(default=None, description=HELP["ca"])
    certificate: Path | None = Field(default=None, description=HELP["certificate"])
    key: Path | None = Field(default=None, description=HELP["key"])
    server_name: str = Field(default="", description=HELP["server_name"])
    token_file: Path | None = Field(default=None, description=HELP["token_file"])
    insecure_token: bool = Field(default=False, description=HELP["insecure_token"])

    def access(self) -> Access:
        """The files."""
        return Access(self.ca, self.certificate, self.key, self.server_name, self.token_file, self.insecure_token)
