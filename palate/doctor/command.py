"""`palate doctor`: what is wrong with a deployment, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Annotated

import typer

from palate.access import Access
from palate.client import ChannelOptions
from palate.client.address import Address, servers_behind
from palate.connection import Seconds, options_for, with_access
from palate.doctor.agreement import compare
from palate.doctor.findings import Finding, Role, bad, is_healthy
from palate.doctor.replica import Subject, examine
from palate.doctor.show import as_json, print_findings
from palate.exit_codes import NOT_GOOD
from palate.json_file import JsonFile, write_json
from palate.terminal import stdout_console

app = typer.Typer(add_completion=False)

_AT_ONCE = 16
"""Replicas that are asked side by side."""

Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port of its Prometheus endpoint, where to ask it.")]


@app.command()
@with_access
def doctor(
    reward: Annotated[str, typer.Option(metavar="ADDRESS", help="Of the reward service.")] = "",
    policy: Annotated[str, typer.Option(metavar="ADDRESS", help="Of the policy service.")] = "",
    ref_policy: Annotated[str, typer.Option(metavar="ADDRESS", help="Of the reference policy's service.")] = "",
    model: Annotated[str, typer.Option(help="Name of the reward model; default is the server's default.")] = "",
    reward_metrics: Port = None,
    policy_metrics: Port = None,
    ref_policy_metrics: Port = None,
    json_file: JsonFile = None,
    timeout: Seconds = 10.0,
    *,
    access: Access,
) -> None:
    """Say what is wrong with running services, and what to do: from a laptop or from a pod.

    Behind a name with several addresses (dns:///reward:50051) every replica is asked by itself, and whether they agree.
    The exit code is 1 where something is bad, and 2 where an option cannot be used.
    """
    asked = {
        Role.REWARD: (reward, reward_metrics),
        Role.POLICY: (policy, policy_metrics),
        Role.REF_POLICY: (ref_policy, ref_policy_metrics),
    }
    given = {role: (target, port) for role, (target, port) in asked.items() if target}
    if not given:
        raise typer.BadParameter("nothing to examine: give --reward, --policy or --ref-policy")
    subjects: list[Subject] = []
    findings: list[Finding] = []
    for role, (target, port) in given.items():
        template = Subject(role, Address(target), options_for(target, access), timeout, model, port)
        try:
            subjects += _replicas(template)
        except OSError as error:
            remedy = "Is the name right, and known where this runs? Names of a cluster are known to its pods alone"
            findings.append(Finding(role, target, bad("address", f"no address: {error.strerror or error}", remedy)))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        examined = list(pool.map(examine, subjects))
    findings += [
        Finding(each.subject.role, each.subject.address.target, answer) for each in examined for answer in each.answers
    ]
    findings += compare(examined)
    print_findings(findings, stdout_console())
    write_json(json_file, as_json(findings))
    raise typer.Exit(0 if is_healthy(findings) else NOT_GOOD)


def _replicas(template: Subject) -> Iterator[Subject]:
    """One for every server behind its address.

    Raises:
        OSError: The name has no address.
    """
    for address in servers_behind(template.address.target):
        yield replace(template, address=address, options=_named(template.options, address.name))


def _named(options: ChannelOptions, name: str) -> ChannelOptions:
    """Who is called by an address has a certificate for the name that the address was found under."""
    if options.tls is None or options.tls.server_name is not None or not name:
        return options
    return replace(options, tls=replace(options.tls, server_name=name))
