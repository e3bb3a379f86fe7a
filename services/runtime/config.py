"""What every server can be told: addresses, limits, drain."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from palate.settings import Settings

_LARGEST = 2**31 - 1
"""What gRPC counts to."""


class ServerConfig(Settings):
    """Settings that every server shares."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(50051, ge=0, le=65535, description="Port for gRPC; 0 picks a free one (see --announce).")
    metrics_host: str = Field("127.0.0.1", description="Address of the Prometheus endpoint.")
    metrics_port: int = Field(9090, ge=0, le=65535, description="Port of the Prometheus endpoint; 0 picks a free one.")
    announce: Path | None = Field(
        None, description="File that receives the ports in use as JSON, written once the server listens."
    )
    exit_with_parent: bool = Field(
        False, description="Drain and end when the process that started this one has ended, however it ended."
    )
    drain_delay_seconds: float = Field(
        0.0, ge=0, description="How long new calls are still taken after SIGTERM, so that clients notice NOT_SERVING."
    )
    drain_grace_seconds: float = Field(
        30.0, gt=0, description="How long accepted calls may take after that before they are cut."
    )
    max_message_bytes: int = Field(
        4 * 1024 * 1024,
        ge=64 * 1024,
        le=_LARGEST,
        description="Largest request or reply in bytes; a larger one is refused.",
    )
    max_deadline_seconds: float = Field(
        300.0, gt=0, description="Deadline of calls that bring none, and the longest a call can ask for."
    )
    max_connection_age_seconds: float = Field(
        300.0, gt=0, description="Age at which a connection is ended kindly, so that clients spread over new replicas."
    )
    max_connection_age_grace_seconds: float | None = Field(
        None,
        gt=0,
        description="How long calls on such a connection may still take; default: --max-deadline-seconds.",
    )
    max_concurrent_calls: int = Field(
        1024,
        ge=1,
        description="Calls in flight at once; one more is refused with RESOURCE_EXHAUSTED. One caller never has all: "
        "an eighth is for those who have less than their share.",
    )
    max_streams_per_connection: int = Field(
        1024,
        ge=1,
        le=_LARGEST,
        description="Calls on one connection at once; a client sends more when earlier ones have ended.",
    )
    slow_reader_seconds: float = Field(
        60.0, gt=0, description="How long one reply of a stream may wait to be read before the call is cut."
    )
    keepalive_seconds: float = Field(
        60.0,
        ge=1,
        description="After how much silence a connection is asked whether anybody is there; it ends where a third of "
        "that passes without an answer.",
    )
    tls_certificate: Path | None = Field(None, description="PEM file with the server's certificate chain.")
    tls_key: Path | None = Field(None, description="PEM file with its private key.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file with the authority of client certificates; given, every client must show one (mTLS).",
    )
    identities: Path | None = Field(
        None, description="YAML file that lists who may call: name, roles, and a token's SHA-256 or a certificate's CN."
    )
    health_port: int | None = Field(
        None, ge=0, le=65535, description="Plaintext port with nothing but health, for probes that cannot do TLS."
    )
    insecure: bool = Field(
        False, description="Listen on an address that is not loopback without TLS and identities; anyone may call."
    )
    otlp_endpoint: str = Field(
        "",
        description="URL of an OpenTelemetry collector's OTLP port (gRPC), http:// or https://, that gets a span for "
        "every call; needs the extra otel. Empty = no traces.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="What is logged.")

    @property
    def connection_grace_seconds(self) -> float:
        """How long calls on a connection that is too old may still take."""
        grace = self.max_connection_age_grace_seconds
        return self.max_deadline_seconds if grace is None else grace
