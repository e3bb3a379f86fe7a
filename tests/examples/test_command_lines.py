"""Every command line of `palate` in a page is one that its parser takes; and what would be wrong is found."""

import os

import pytest

from tests.examples.command_lines import command_lines_of, complaint
from tests.examples.toolchains import ROOT

READMES = (folder.rglob("README.md") for folder in (ROOT / "k8s", ROOT / "protos", *(ROOT / "examples").iterdir()))
PAGES = sorted(
    {*ROOT.glob("docs/*.md"), *(ROOT / f"{name}.md" for name in ("README", "SECURITY", "CONTRIBUTING"))}.union(*READMES)
)
PAGES = [page for page in PAGES if "node_modules" not in page.parts]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in os.environ:
        if name.startswith("PALATE_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_command_lines_can_be_parsed(page):
    found = {
        f"line {each.line}: {' '.join(each.words)}": complaint(each) for each in command_lines_of(page.read_text())
    }
    assert not "\n".join(f"{where}: {what}" for where, what in found.items() if what)


def test_they_are_found_wherever_a_page_has_them():
    text = (ROOT / "docs" / "deploy.md").read_text()
    found = [each.words[:2] for each in command_lines_of(text)]
    assert {("verify", "--model"), ("doctor", "--reward"), ("score", "rows.jsonl"), ("models", "load")} <= set(found)
    assert len([words for page in PAGES for words in command_lines_of(page.read_text())]) > 100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("`palate verify FOLDER`", "extra argument"),
        ("`palate tune --model m`", "there is no command 'tune'"),
        ("`palate models list all`", "extra argument"),
        ("`palate models reload`", "there is no 'reload' below it"),
        ("`palate verify --modle m`", "--modle"),
        ("```\npalate verify --engine onyx --model m\n```", "onyx"),
        ("```bash\npalate verify --strict  # of what?\n```", "Missing parameter: model"),
        ("`palate train ppo --ppo.kl-koef 1`", "--ppo.kl-koef"),
        ("```bash\nA=1 palate serve reward \\\n  --treads 2 --model m &\n```", "--treads"),
        ("```bash\nuntil palate ping --traget x > /dev/null; do sleep 1; done\n```", "--traget"),
        ("```bash\npalate serve reward\n```", "--model is missing"),
        ("```yaml\nargs: [doctor, --rewards, x]\n```", "--rewards"),
    ],
)
def test_what_is_wrong_is_said(text, said):
    (found,) = command_lines_of(text)
    assert said in complaint(found)


def test_prose_may_name_a_command_or_a_flag_alone():
    for text in ("`palate export`", "`palate verify\n--against`", "`palate train ppo --config`", "`palate train`"):
        (found,) = command_lines_of(text)
        assert not complaint(found)
