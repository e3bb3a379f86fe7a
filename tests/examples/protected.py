"""A certificate authority, a server certificate and one bearer token, written as files for servers and clients."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import trustme
import yaml

from palate.client import Tls

TOKEN = "one-token-for-every-example"


@dataclass(frozen=True, slots=True)
class Protection:
    """Where the files are.

    Attributes:
        folder: Holds ca.pem, cert.pem, key.pem and identities.yaml.
    """

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def tls(self) -> Tls:
        return Tls(ca=self.ca.read_bytes())

    @property
    def token_flags(self) -> list[str]:
        return ["--identities", str(self.folder / "identities.yaml")]

    @property
    def tls_flags(self) -> list[str]:
        return ["--tls-certificate", str(self.folder / "cert.pem"), "--tls-key", str(self.folder / "key.pem")]


def make_protection(folder: Path) -> Protection:
    """Writes the files into `folder`."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    entry = {"name": "examples", "roles": ["trainer"], "token_sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}
    (folder / "identities.yaml").write_text(yaml.safe_dump([entry]))
    return Protection(folder)
