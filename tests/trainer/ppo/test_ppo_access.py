"""Runs against services that ask for TLS, certificates and roles."""

from contextlib import ExitStack
from dataclasses import replace

import pytest

from benchmarks.protected import make_protection, token_of
from palate.access import AccessError
from palate.client import ChannelOptions, PalateError, PolicyClient, Unavailable
from palate.local_server import local_server
from trainer.config import PPOConfig
from trainer.ppo.errors import AccessRefused, PublishFailed
from trainer.ppo.run import run_ppo

POLICY_NAME, REWARD_NAME = "policy.example", "reward.example"


@pytest.fixture(scope="module")
def protection(tmp_path_factory):
    return make_protection(tmp_path_factory.mktemp("protection"), POLICY_NAME, REWARD_NAME)


@pytest.fixture(scope="module")
def servers(protection, policy_folder, reward_folder):
    """Policy, frozen policy and reward service behind TLS; the last one asks for certificates too."""
    policy = ["-m", "services.policy", "--model", str(policy_folder), "--threads", "1"]
    reward = ["-m", "services.reward", "--model", str(reward_folder), "--threads", "1"]
    tls = replace(protection.tls, server_name=POLICY_NAME)
    mutual = replace(protection.mutual_tls("scorer"), server_name=REWARD_NAME)
    with ExitStack() as stack:
        yield [
            stack.enter_context(local_server([*command, *protection.token_flags, *flags], probe_tls=probe))
            for command, flags, probe in (
                (policy, protection.tls_flags, tls),
                ([*policy, "--frozen"], protection.tls_flags, tls),
                (reward, protection.mtls_flags, mutual),
            )
        ]


@pytest.fixture
def configure_protected(configure, servers, protection):
    """The configuration of a run that is let in, with `changes`: None leaves an option out, True is a flag."""
    policy, ref, reward = servers
    allowed = {
        "--services.policy": policy.target,
        "--services.ref": ref.target,
        "--services.reward": reward.target,
        "--services.ca": protection.ca,
        "--services.server-name": POLICY_NAME,
        "--services.reward-server-name": REWARD_NAME,
        "--services.token-file": protection.token_file("trainer"),
        "--services.reward-token-file": protection.token_file("scorer"),
        "--services.certificate": protection.certificate("trainer"),
        "--services.key": protection.key("trainer"),
        "--services.attempts": 1,
        "--services.wait": 0,
        "--services.timeout": 30,
        "--total-steps": 1,
    }

    def make(**changes):
        options = allowed | {f"--services.{name.replace('_', '-')}": value for name, value in changes.items()}
        given = [(name, value) for name, value in options.items() if value is not None]
        return configure(*(part for name, value in given for part in ((name,) if value is True else (name, value))))

    return make


def test_a_run_with_the_right_roles_publishes(configure_protected, servers, protection):
    result = run_ppo(configure_protected())
    tls = replace(protection.tls, server_name=POLICY_NAME)
    options = ChannelOptions(tls=tls, token=token_of("generator"))
    with PolicyClient(servers[0].target, options=options) as client:
        assert client.policy_info().policy_version == result.version
    assert result.version.step == 1


def test_a_certificate_alone_is_enough_where_it_is_asked_for(configure_protected, servers, protection, policy_folder):
    command = ["-m", "services.policy", "--model", str(policy_folder), "--threads", "1"]
    flags = [*protection.token_flags, *protection.mtls_flags]
    probe = replace(protection.mutual_tls("generator"), server_name=POLICY_NAME)
    with local_server([*command, *flags], probe_tls=probe) as policy:
        config = configure_protected(policy=policy.target, ref="local", token_file=None, reward_token_file=None)
        assert run_ppo(config).steps == 1


@pytest.mark.parametrize(("insecure", "told"), [(None, "without TLS"), (True, "That name is not known here")])
def test_a_token_goes_to_another_machine_without_tls_only_where_one_insists(configure_protected, insecure, told):
    plain = dict.fromkeys(["ca", "certificate", "key", "server_name", "reward_server_name"])
    config = configure_protected(policy="policy.invalid:50052", ref="local", insecure_token=insecure, **plain)
    with pytest.raises(PalateError, match=told):
        run_ppo(config)


def test_one_token_does_for_both_services(configure_protected):
    assert run_ppo(configure_protected(reward_token_file=None)).steps == 1


@pytest.mark.parametrize("role", ["scorer", "generator", "trainer"])
def test_the_role_decides_where_a_run_is_refused(configure_protected, servers, protection, role):
    """A scorer may not ask what the policy is, a generator may not publish, a trainer may do all."""
    config = configure_protected(token_file=protection.token_file(role))
    if role == "trainer":
        assert run_ppo(config).steps == 1
        return
    refusal = {
        "scorer": (AccessRefused, "scorer-team may not call /palate.v1.PolicyService/GetPolicyInfo"),
        "generator": (PublishFailed, "generator-team may not call /palate.v1.PolicyService/AcquirePublisher"),
    }[role]
    with pytest.raises(refusal[0], match=refusal[1]) as raised:
        run_ppo(config)
    assert servers[0].target in str(raised.value)
    assert "it is for: admin, trainer" in str(raised.value) or role == "scorer"
    assert "--services.token-file" in str(raised.value)
    assert token_of(role) not in str(raised.value)


def test_the_reward_service_refuses_a_generator(configure_protected, servers, protection):
    with pytest.raises(AccessRefused, match="generator-team may not call") as raised:
        run_ppo(configure_protected(reward_token_file=protection.token_file("generator")))
    assert servers[2].target in str(raised.value)
    assert "--services.reward-token-file" in str(raised.value)


def test_without_a_token_nobody_gets_in(configure_protected, servers):
    with pytest.raises(AccessRefused, match="no valid credentials") as raised:
        run_ppo(configure_protected(token_file=None))
    assert servers[0].target in str(raised.value)
    assert "--services.token-file" in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        (lambda f: {"ca": None, "certificate": None, "key": None, "server_name": None, "reward_server_name": None},
         Unavailable, "it may want TLS"),
        (lambda f: {"server_name": None}, Unavailable, "for another name than the address"),
        (lambda f: {"key": None}, AccessError, "certificate and key go together"),
        (lambda f: {"token_file": f.folder / "nowhere"}, AccessError, "nowhere cannot be read"),
        (lambda f: {"certificate": None, "key": None}, Unavailable, "no answer from"),  # the reward service wants one
    ],
    ids=["plaintext", "name", "key", "token", "certificate"],
)  # fmt: skip
def test_what_is_missing_is_said(configure_protected, protection, changes, error, told):
    with pytest.raises(error, match=told):
        run_ppo(configure_protected(**changes(protection)))


def test_no_secret_is_in_the_configuration_that_is_shown(protection):
    required = ["--out", "o", "--policy", "p", "--prompts", "q"]
    file = protection.token_file("trainer")
    config = PPOConfig.from_command_line([*required, "--services.token-file", str(file)], prog="test")
    assert str(file) in config.describe()
    assert token_of("trainer") not in config.describe() + repr(config)
