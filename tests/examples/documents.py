"""Code blocks of a document, and a shell that runs them one after the other as a reader would."""

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        line: Where its fence is.
        language: First word after the fence.
        needs: The other words: what a machine must have to run it.
        code: What stands in it.
    """

    line: int
    language: str
    needs: tuple[str, ...]
    code: str


def blocks_of(text: str) -> list[Block]:
    """Every fenced block, in order."""
    found = []
    for match in FENCE.finditer(text):
        language, *needs = match["info"].split() or [""]
        found.append(Block(text.count("\n", 0, match.start()) + 1, language, tuple(needs), match["code"]))
    return found


class Shell:
    """One bash for all blocks of a document: variables and background jobs live on, the first failure ends it."""

    def __init__(self, folder: Path, ports: Mapping[str, int], environment: Mapping[str, str]) -> None:
        self.folder, self._ports, self._count, self._broken = folder, ports, 0, False
        bin_folder = str(Path(sys.executable).parent)
        self._process = subprocess.Popen(
            ["bash", "-eo", "pipefail"],
            cwd=folder,
            env={**os.environ, **environment, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, block: Block, seconds: float) -> str:
        """Runs a block and returns what it printed.

        Raises:
            AssertionError: It failed, or took too long; the message has what it printed.
        """
        assert not self._broken, f"line {block.line}: not run, an earlier block failed"
        self._count += 1
        suffix = {"python": "py", "bash": "sh"}[block.language]
        file, output = (self.folder / f".block-{self._count}.{end}" for end in (suffix, "out"))
        file.write_text(self._with_free_ports(block.code), encoding="utf-8")
        runner = "python" if block.language == "python" else "."
        self._send(f"{{ {runner} ./{file.name}; }} > {output.name} 2>&1 < /dev/null; echo done\n")
        answer = self._answer(seconds)
        self._broken = answer != b"done\n"
        printed = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
        assert not self._broken, f"line {block.line}: {answer!r} after\n{printed[-3000:]}"
        return printed

    def close(self) -> None:
        """Ends the shell and whatever it left running."""
        with suppress(BrokenPipeError):  # it may have ended by itself
            self._process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(15)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self._process.stdout.close()

    def _with_free_ports(self, code: str) -> str:
        """The documents' ports are those a reader would take; here they may be taken by somebody else."""
        for documented, free in self._ports.items():
            code = re.sub(rf"\b{documented}\b", str(free), code)
        return code

    def _send(self, line: str) -> None:
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()

    def _answer(self, seconds: float) -> bytes:
        """b"done" and a newline; nothing where the shell ended."""
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return self._process.stdout.readline() if ready else b"still running"
