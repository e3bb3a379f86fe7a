"""From settings to credentials: what protects the port, and the refusal to open one that nothing protects."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

import grpc

from palate.access import AccessError, read_pem
from palate.client.address import is_loopback
from services.runtime.config import ServerConfig
from services.runtime.identity import Guard, Identities, IdentityFileError, stamp_of

logger = logging.getLogger(__name__)


class SecurityError(Exception):
    """The security settings do not hold together; the message says what to add."""


def guard_of(config: ServerConfig) -> Guard:
    """Who may call, by the identities file.

    Raises:
        SecurityError: The address is reachable from outside and nothing protects it, or the file is wrong.
    """
    if not config.insecure and not is_loopback(config.host) and not (config.tls_certificate and config.identities):
        raise SecurityError(
            f"{config.host} can be reached from other machines, and whoever calls a reward service controls a training "
            "signal: give --tls-certificate, --tls-key and --identities, or say --insecure"
        )
    if config.tls_client_ca is not None and config.identities is None:
        raise SecurityError("--tls-client-ca needs --identities: it lists which certificates may do what")
    try:
        return Guard(None if config.identities is None else Identities(config.identities))
    except IdentityFileError as error:
        raise SecurityError(str(error)) from error


def server_credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    """TLS, or mTLS where an authority for client certificates is given; None = plaintext.

    Raises:
        SecurityError: A file is missing or holds something else, or one of the pair is not given.
    """
    if (config.tls_certificate is None) != (config.tls_key is None):
        raise SecurityError("--tls-certificate and --tls-key go together")
    if config.tls_certificate is None or config.tls_key is None:
        if config.tls_client_ca is not None:
            raise SecurityError("--tls-client-ca needs --tls-certificate and --tls-key")
        return None
    try:
        certificates = Certificates(config.tls_certificate, config.tls_key, config.tls_client_ca)
        first = certificates.read()
    except AccessError as error:
        raise SecurityError(str(error)) from error
    required = config.tls_client_ca is not None
    return grpc.dynamic_ssl_server_credentials(first, certificates.renewed, require_client_authentication=required)


class Certificates:
    """The files behind TLS, read again for a new connection when one of them has changed.

    A renewed certificate needs no restart; connections that there are go on. Files that have become unreadable keep the
    last good state, which the log says.

    Raises:
        AccessError: A file is missing or holds something else when it is read first.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._stamps = self._look()

    def read(self) -> grpc.ServerCertificateConfiguration:
        """What the files hold now.

        Raises:
            AccessError: One is missing or holds something else, or they are not of one another.
        """
        pair = (read_pem(self._key, "private key"), read_pem(self._certificate, "certificate"))
        _check_pair(self._certificate, self._key)
        authority = None if self._client_ca is None else read_pem(self._client_ca, "certificate")
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=authority)

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """The same where a file has changed since the last good reading, else None; gRPC asks for every connection."""
        try:
            stamps = self._look()
            if stamps == self._stamps:
                return None
            found = self.read()
        except AccessError as error:
            logger.error("certificates cannot be read again, the last good ones stay: %s", error)
            return None
        self._stamps = stamps
        logger.info("certificates have changed, and count from the next connection on")
        return found

    def _look(self) -> list[tuple[int, int, int]]:
        files = [file for file in (self._certificate, self._key, self._client_ca) if file is not None]
        try:
            return [stamp_of(file) for file in files]
        except OSError as error:
            raise AccessError(f"{error.filename} cannot be read: {error.strerror}") from error


def _check_pair(certificate: Path, key: Path) -> None:
    """Any two are taken by gRPC, which goes on with the former pair, and only writes a line of its own about it.

    Raises:
        AccessError: The key is not the certificate's, as in the middle of a renewal, or needs a password.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")  # how strong they are is another question, which is not asked here
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError, OSError) as error:
        raise AccessError(
            f"{key} is not the key of {certificate}, or one of them is damaged or wants a password: give a pair"
        ) from error


def _no_password() -> str:
    raise ValueError("a server has nobody to ask")
