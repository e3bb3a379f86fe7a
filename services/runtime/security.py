"""From settings to credentials: what protects the port, and the refusal to open one that nothing protects."""

from __future__ import annotations

import grpc

from palate.access import AccessError, read_pem
from palate.client.address import is_loopback
from services.runtime.config import ServerConfig
from services.runtime.identity import Guard, Identities, IdentityFileError


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
        pair = (read_pem(config.tls_key, "private key"), read_pem(config.tls_certificate, "certificate"))
        authority = None if config.tls_client_ca is None else read_pem(config.tls_client_ca, "certificate")
    except AccessError as error:
        raise SecurityError(str(error)) from error
    return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=authority is not None)
