"""How the way to a server behaves: message sizes, keepalive, retries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import Message as ProtoMessage

from palate.client import checks
from palate.client.address import stays_here
from palate.client.errors import InvalidInput, MessageTooLarge, call_error

_RETRIED = [
    {"service": "palate.v1.RewardService"},
    {"service": "palate.v1.PolicyService", "method": "ComputeLogprobs"},
    {"service": "palate.v1.PolicyService", "method": "GetPolicyInfo"},
]
"""Calls that change nothing, so that sending them twice does no harm."""

_AWAY = ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"]
"""What is tried again. The last is what gRPC says of calls that reached a server in the moment of its end; calls that
their own caller cancels are over."""

_RESUMED = [
    {"service": "palate.v1.RewardService", "method": "ScoreStream"},
    {"service": "palate.v1.PolicyService", "method": "Generate"},
]
"""Streams, which our client begins again itself.

Of a stream that gRPC may repeat it can lose every event, the end at its deadline too, when the server is killed: the
caller waits for ever (gRPC 1.85; about one in a thousand calls to a server that is killed and started all the time).
"""

_PAUSES = (0.1, 0.2, 0.4, 0.8)
"""As gRPC waits, see `_service_config`."""

_INT32 = 2**31 - 1
"""Largest number that gRPC takes in its options."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Encryption and, with a certificate of one's own, mutual authentication.

    Attributes:
        ca: PEM of the authority that signed the server's certificate; None = those of the system.
        certificate: PEM of the client's certificate chain, for servers that ask for one.
        key: PEM of its private key.
        server_name: The name to expect in the server's certificate, where it is not the name in the target.
    """

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("ca", "certificate", "key"):
            if not isinstance(getattr(self, name), (bytes, type(None))):
                raise InvalidInput(f"{name} is no bytes; give what is in the PEM file, e.g. Path(...).read_bytes()")
        if (self.certificate is None) != (self.key is None):
            raise InvalidInput("certificate and key go together: give both, or neither")
        if self.server_name is not None:
            checks.text(self.server_name, "server_name")


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """How to reach a server.

    Attributes:
        tls: Encryption; None = plaintext, for servers on this machine.
        token: Bearer token; empty = none. Without TLS everybody on the way could read it: then it goes to this machine
            alone.
        allow_plaintext_token: Send the token to other machines without TLS all the same, for ways that others protect.
        max_message_bytes: Largest request and reply; a larger request is refused before it is sent.
        max_attempts: How often an idempotent call is tried when the server is away or sheds load; gRPC allows 2 to 5,
            1 switches retries off.
        retry_buffer_bytes: How much of a request is kept for another try; gRPC does not retry what is larger. It does not
            bound streams, which our clients begin again themselves.
    """

    tls: Tls | None = None
    token: str = field(default="", repr=False)
    allow_plaintext_token: bool = False
    max_message_bytes: int = 4 * 1024 * 1024
    max_attempts: int = 4
    retry_buffer_bytes: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.tls is not None:
            checks.instance(self.tls, Tls, "tls")
        token = checks.text(self.token, "token")
        if not (token.isascii() and token.isprintable() and token == token.strip()):
            raise InvalidInput("token is not printable ASCII, or has a space or a line's end around it; strip() it")
        checks.flag(self.allow_plaintext_token, "allow_plaintext_token")
        for name, smallest in (("max_message_bytes", 1), ("max_attempts", 1), ("retry_buffer_bytes", 0)):
            checks.count(getattr(self, name), name, _INT32, smallest)


def check_way(target: str, options: ChannelOptions) -> None:
    """Refuses an address that is none, and to let a token be read on its way.

    Raises:
        InvalidInput: Of the address; or the token would go to another machine without TLS, and nobody said that it may.
    """
    local = stays_here(checks.address(target))
    if options.token and options.tls is None and not options.allow_plaintext_token and not local:
        raise InvalidInput(
            f"the token would go to {target} without TLS, and everybody on the way could read it: give tls (--ca), or "
            "say allow_plaintext_token (--insecure-token) where nobody can listen"
        )


def open_channel(target: str, options: ChannelOptions) -> grpc.Channel:
    """A channel for blocking calls.

    Raises:
        InvalidInput: The address is none, or a token would go there readably.
    """
    check_way(target, options)
    credentials, arguments = _credentials(options), _arguments(options)
    if credentials is None:
        return grpc.insecure_channel(target, options=arguments)
    return grpc.secure_channel(target, credentials, options=arguments)


def open_async_channel(target: str, options: ChannelOptions) -> grpc.aio.Channel:
    """As `open_channel`, for awaited calls; needs a running event loop."""
    check_way(target, options)
    credentials, arguments = _credentials(options), _arguments(options)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=arguments)
    return grpc.aio.secure_channel(target, credentials, options=arguments)


def call_metadata(options: ChannelOptions) -> tuple[tuple[str, str], ...]:
    """What every call carries."""
    return (("authorization", f"Bearer {options.token}"),) if options.token else ()


def _credentials(options: ChannelOptions) -> grpc.ChannelCredentials | None:
    if options.tls is None:
        return None
    return grpc.ssl_channel_credentials(options.tls.ca, options.tls.key, options.tls.certificate)


def _arguments(options: ChannelOptions) -> list[tuple[str, str | int]]:
    """`options` as gRPC takes them. Load is spread over all addresses of a name (use ``dns:///name:port``)."""
    name = options.tls.server_name if options.tls is not None else None
    return [
        *([("grpc.ssl_target_name_override", name)] if name else []),
        ("grpc.max_send_message_length", options.max_message_bytes),
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.keepalive_time_ms", 60_000),
        # A server that restarts is back in seconds, and gRPC's own pace grows to two minutes. A second at most: where
        # replicas restart one after the other, the first must be found again while the second still drains.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.dns_min_time_between_resolutions_ms", 2_000),  # 30 s would leave callers of replaced pods without any
        ("grpc.enable_retries", int(options.max_attempts > 1)),
        ("grpc.per_rpc_retry_buffer_size", options.retry_buffer_bytes),
        ("grpc.service_config", json.dumps(_service_config(options))),
    ]


def _service_config(options: ChannelOptions) -> dict[str, object]:
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if options.max_attempts > 1:
        policy = {
            "maxAttempts": options.max_attempts,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": _AWAY,
        }
        config["methodConfig"] = [{"name": _RETRIED, "retryPolicy": policy}, {"name": _RESUMED}]
    return config


def pauses(service: str, options: ChannelOptions) -> tuple[float, ...]:
    """Seconds to wait before each further try of a call that a proxy answered; none of what changes something.

    gRPC repeats such a call only where the proxy's whole answer has come when it looks at the headers: of nginx's 502
    it passed on one in five.
    """
    return stream_pauses(options) if {"service": service} in _RETRIED else ()


def stream_pauses(options: ChannelOptions) -> tuple[float, ...]:
    """Seconds to wait before each further try of a stream of which nothing has come."""
    return _PAUSES[: options.max_attempts - 1]


def checked_size(request: ProtoMessage, options: ChannelOptions) -> None:
    """Refuses a request that is over the limit; gRPC would answer it like an overload, and retry in vain.

    Raises:
        MessageTooLarge: With both sizes.
    """
    size = request.ByteSize()
    if size > options.max_message_bytes:
        raise MessageTooLarge(
            f"the request has {size} bytes, the limit is {options.max_message_bytes}; send fewer or shorter items"
        )


@contextmanager
def errors_of(target: str, service: str) -> Iterator[None]:
    """Turns what gRPC raises in a call of `service` into this package's errors."""
    try:
        yield
    except grpc.RpcError as error:
        raise call_error(error, target, service) from error
