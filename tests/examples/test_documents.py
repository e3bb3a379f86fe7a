"""Every code block of the documents runs, in order, in one folder, against real services."""

import shutil
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from random import SystemRandom

import pytest

from palate.models.export import export
from tests.examples.documents import Block, Shell, blocks_of
from tests.examples.toolchains import CLIENTS, ROOT, buf, need, need_java, node_client, triton_python
from tests.servers import start_server
from tests.tiny_models import make_tiny_policy, make_tiny_reward

NAMES = ("quickstart", "clients", "adapters")
DOCUMENTS = {name: blocks_of((ROOT / "docs" / f"{name}.md").read_text()) for name in NAMES}
BLOCKS = [(name, index) for name, blocks in DOCUMENTS.items() for index in range(len(blocks))]
QUIET = {
    f"PALATE_{service}_{name}": value
    for service in ("REWARD", "POLICY")
    for name, value in {"THREADS": "1", "METRICS_PORT": "0"}.items()
} | {"OMP_NUM_THREADS": "1"}
BLOCK_SECONDS = 120.0


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """Below those that the system hands out by itself, lest a server beside takes one before its block runs."""
    with ExitStack() as stack:
        ports: dict[str, int] = {}
        tried = iter(SystemRandom().sample(range(15_000, 30_000), 200))
        while len(ports) < len(names):
            with suppress(OSError):
                taken = stack.enter_context(socket.create_server(("127.0.0.1", next(tried))))
                ports[names[len(ports)]] = taken.getsockname()[1]
        return ports


@pytest.fixture(scope="module")
def shells(tmp_path_factory):
    """Makes a document's shell when its first block comes; all are closed in the end."""
    with ExitStack() as stack:
        made: dict[str, Shell] = {}

        def shell(name: str) -> Shell:
            if name not in made:
                folder = tmp_path_factory.mktemp(name)
                ports = free_ports(("50051", "50052", "50053", "50054", "9091", "9092", "9093"))
                if name != "quickstart":
                    ports |= prepare_for_clients(folder, stack)
                made[name] = Shell(folder, ports, QUIET)
                stack.callback(made[name].close)
            return made[name]

        yield shell


def prepare_for_clients(folder: Path, stack: ExitStack) -> dict[str, int]:
    """What the other pages take for granted: the quickstart's servers and folders, and the repository's root."""
    served = export(make_tiny_reward(folder / "reward", "decoder", 0, chat=True), folder / "served").path
    policy = make_tiny_policy(folder / "policy", 0)
    ignored = shutil.ignore_patterns("node_modules", "build")
    shutil.copytree(CLIENTS, folder / "examples" / "clients", ignore=ignored)
    (folder / "protos").symlink_to(ROOT / "protos")
    servers = {
        "50051": start_server("services.reward", served, "--threads", "1"),
        "50052": start_server("services.policy", policy, "--threads", "1"),
    }
    return {port: int(stack.enter_context(server).target.rpartition(":")[2]) for port, server in servers.items()}


def checkout(_: Path) -> None:
    pytest.skip("installs the checkout: the environment that runs this test is what it makes")


def node(work: Path) -> None:
    link(node_client(work).parent / "node_modules", work / "examples" / "clients" / "node" / "node_modules")


def java(_: Path) -> None:
    need_java()


def buf_curl(work: Path) -> None:
    link(buf(work).parents[1], work / "node_modules")


def triton(work: Path) -> None:
    link(triton_python().parents[1], work / ".venv-triton")


def openssl(_: Path) -> None:
    need("openssl", "sha256sum")


def trainer(name: str) -> Callable[[Path], None]:
    def absent(_: Path) -> None:
        pytest.skip(f"{name} wants GPUs and a model")

    return absent


def link(source: Path, target: Path) -> None:
    if not target.exists():
        target.symlink_to(source)


NEEDS: dict[str, Callable[[Path], None]] = {
    "checkout": checkout,
    "node": node,
    "java": java,
    "buf": buf_curl,
    "triton": triton,
    "openssl": openssl,
    "verl": trainer("verl"),
    "openrlhf": trainer("OpenRLHF"),
}
"""What may stand after a fence's language: each function gets it ready in the document's folder, or skips."""


def test_no_block_is_left_out():
    for name, blocks in DOCUMENTS.items():
        assert len(blocks) == (ROOT / "docs" / f"{name}.md").read_text().count("```") / 2
        for block in blocks:
            assert block.language in ("python", "bash"), f"{name}.md, line {block.line}: it would not be run"
            assert set(block.needs) <= NEEDS.keys(), f"{name}.md, line {block.line}"


def test_a_block_that_fails_fails_the_test(tmp_path):
    for code, language in (("false\necho on", "bash"), ("raise SystemExit(3)", "python"), ("exit 0", "bash")):
        shell = Shell(tmp_path, {}, {})
        try:
            with pytest.raises(AssertionError, match="line 7"):
                shell.run(Block(7, language, (), code), 30)
            with pytest.raises(AssertionError, match="an earlier block failed"):
                shell.run(Block(9, "bash", (), "true"), 30)
        finally:
            shell.close()


@pytest.mark.parametrize(("name", "index"), BLOCKS, ids=[f"{n}-{DOCUMENTS[n][i].line}" for n, i in BLOCKS])
def test_block(name, index, shells):
    block, shell = DOCUMENTS[name][index], shells(name)
    for what in block.needs:
        NEEDS[what](shell.folder)
    printed = shell.run(block, BLOCK_SECONDS)
    assert "Traceback" not in printed
