"""A certificate authority, a server certificate and an identity for every role, as files: for tests and measuring."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import trustme
import yaml

from palate.client import Tls

ROLES = ("scorer", "expediter", "generator", "trainer", "admin")


def token_of(role: str) -> str:
    """The bearer token of the identity with this role."""
    return f"the-token-of-the-{role}"


@dataclass(frozen=True, slots=True)
class Protection:
    """Where the files are.

    Attributes:
        folder: Holds ca.pem, cert.pem, key.pem, identities.yaml, and ROLE.token, ROLE.pem, ROLE.key of every role.
        authority: What signed the certificates.
    """

    folder: Path
    authority: trustme.CA

    @property
    def ca(self) -> Path:
        """The certificate of the authority."""
        return self.folder / "ca.pem"

    @property
    def tls(self) -> Tls:
        """For a client that knows the authority."""
        return Tls(ca=self.ca.read_bytes())

    @property
    def token_flags(self) -> list[str]:
        """For a server that asks who calls, by token or certificate."""
        return ["--identities", str(self.folder / "identities.yaml")]

    @property
    def tls_flags(self) -> list[str]:
        """For a server with a certificate."""
        return ["--tls-certificate", str(self.folder / "cert.pem"), "--tls-key", str(self.folder / "key.pem")]

    @property
    def mtls_flags(self) -> list[str]:
        """For a server that also asks for certificates."""
        return [*self.tls_flags, "--tls-client-ca", str(self.ca)]

    def token_file(self, role: str) -> Path:
        """Holds the token of the identity with this role."""
        return self.folder / f"{role}.token"

    def certificate(self, role: str) -> Path:
        """That of the identity with this role."""
        return self.folder / f"{role}.pem"

    def key(self, role: str) -> Path:
        """What belongs to its certificate."""
        return self.folder / f"{role}.key"

    def mutual_tls(self, role: str) -> Tls:
        """For a client that is the identity with this role."""
        return Tls(self.ca.read_bytes(), self.certificate(role).read_bytes(), self.key(role).read_bytes())

    def mutual_tls_of(self, common_name: str) -> Tls:
        """A client's certificate for somebody else than the roles' identities."""
        issued = self.authority.issue_cert("client.example", common_name=common_name)
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        return Tls(self.ca.read_bytes(), chain, issued.private_key_pem.bytes())


def make_protection(folder: Path, *names: str) -> Protection:
    """Writes the files into `folder`; the server is known by `names`, or as this machine."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    _write(authority.issue_cert(*(names or ("127.0.0.1", "localhost"))), folder / "cert.pem", folder / "key.pem")
    protection = Protection(folder, authority)
    identities = []
    for role in ROLES:
        issued = authority.issue_cert("client.example", common_name=f"{role}.pod")
        _write(issued, protection.certificate(role), protection.key(role))
        protection.token_file(role).write_text(token_of(role) + "\n")
        digest = hashlib.sha256(token_of(role).encode()).hexdigest()
        identities.append({"name": f"{role}-team", "roles": [role], "token_sha256": digest})
        identities.append({"name": f"{role}-pod", "roles": [role], "certificate": f"{role}.pod"})
    (folder / "identities.yaml").write_text(yaml.safe_dump(identities))
    return protection


def _write(issued: trustme.LeafCert, certificate: Path, key: Path) -> None:
    certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
