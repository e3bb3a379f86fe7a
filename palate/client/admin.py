"""Clients of a reward server's administration: `AdminClient` blocks, `AsyncAdminClient` awaits."""

from __future__ import annotations

from palate.client import checks, convert
from palate.client import types as t
from palate.client.calls import AwaitedClient, BlockingClient
from palate.client.channel import ChannelOptions
from palate.v1 import admin_service_pb2 as admin
from palate.v1.admin_service_pb2_grpc import AdminServiceStub

_SERVICE = "palate.v1.AdminService"


class AdminClient(BlockingClient):
    """The models of one reward server, changed while it serves; needs the role admin.

    Args:
        target: Address of one server: each replica has models of its own.
        timeout: Deadline of every call in seconds, unless the call says otherwise; loading takes as long as at start.
        options: Encryption, token.
    """

    def __init__(self, target: str, *, timeout: float = 300.0, options: ChannelOptions | None = None) -> None:
        super().__init__(_SERVICE, target, timeout, options)
        self._stub = AdminServiceStub(self._channel)

    def load_model(
        self, name: str, path: str, *, set_default: bool = False, revision: str = "", timeout: float | None = None
    ) -> t.LoadedModel:
        """Loads a folder beside what is served, and gives it its name once it is checked.

        A model that has the name is replaced: calls that have begun finish on it, later ones get the new one.

        Args:
            name: The name it is served by.
            path: The folder as the server sees it: absolute, or from its model root on.
            set_default: Make it the default model as well.
            revision: The revision that the folder must have; empty = any.
            timeout: Deadline in seconds. Where it passes, or the call is cancelled, nothing was changed.

        Raises:
            FailedPrecondition: The folder cannot be served; nothing was changed.
            PermissionDenied: The path is outside of the server's model root, or the server has none.
            CallError: The call failed.
        """
        request = _load_request(name, path, set_default, revision)
        return convert.loaded_model(self._call(self._stub.LoadModel, request, timeout))

    def unload_model(self, name: str, *, timeout: float | None = None) -> str:
        """Takes a model away, calls that have begun finish; gives its revision.

        Raises:
            FailedPrecondition: It is the default model.
            NotFound: There is none of that name.
            CallError: The call failed.
        """
        request = admin.UnloadModelRequest(name=checks.text(name, "name"))
        return str(self._call(self._stub.UnloadModel, request, timeout).revision)

    def set_default_model(self, name: str, *, timeout: float | None = None) -> str:
        """Chooses the model that answers requests without a name; gives the name of the one before.

        Raises:
            NotFound: There is none of that name.
            CallError: The call failed.
        """
        request = admin.SetDefaultModelRequest(name=checks.text(name, "name"))
        return str(self._call(self._stub.SetDefaultModel, request, timeout).previous)


class AsyncAdminClient(AwaitedClient):
    """The models of one reward server; arguments and methods as `AdminClient`. Make it inside a running event loop."""

    def __init__(self, target: str, *, timeout: float = 300.0, options: ChannelOptions | None = None) -> None:
        super().__init__(_SERVICE, target, timeout, options)
        self._stub = AdminServiceStub(self._channel)

    async def load_model(
        self, name: str, path: str, *, set_default: bool = False, revision: str = "", timeout: float | None = None
    ) -> t.LoadedModel:
        """As `AdminClient.load_model`."""
        request = _load_request(name, path, set_default, revision)
        return convert.loaded_model(await self._call(self._stub.LoadModel, request, timeout))

    async def unload_model(self, name: str, *, timeout: float | None = None) -> str:
        """As `AdminClient.unload_model`."""
        request = admin.UnloadModelRequest(name=checks.text(name, "name"))
        return str((await self._call(self._stub.UnloadModel, request, timeout)).revision)

    async def set_default_model(self, name: str, *, timeout: float | None = None) -> str:
        """As `AdminClient.set_default_model`."""
        request = admin.SetDefaultModelRequest(name=checks.text(name, "name"))
        return str((await self._call(self._stub.SetDefaultModel, request, timeout)).previous)


def _load_request(name: str, path: str, set_default: bool, revision: str) -> admin.LoadModelRequest:
    return admin.LoadModelRequest(
        name=checks.text(name, "name"),
        path=checks.text(path, "path"),
        set_default=checks.flag(set_default, "set_default"),
        revision=checks.text(revision, "revision"),
    )
