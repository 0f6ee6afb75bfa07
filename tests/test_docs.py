"""What the documentation tells people to type: every command is parsed and checked, the Python runs."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import torch

from ddm.cli import VERBS, main
from ddm.commands import compare, convert, data, doctor, evaluate, export, report, sample, studio, train
from ddm.commands import list as list_
from ddm.runs import naming

ROOT = Path(__file__).parent.parent
heun = importlib.import_module("ddm.diffusion.samplers.heun")  # a file of a sampler, with the imports of one
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def typed(text: str) -> str:
    """Commands over several lines on one, and those of launchers as those of one process."""
    return re.sub(r"(torchrun|accelerate launch) .*-m ddm\.cli ", "ddm ", re.sub(r"\s*\\\n\s*", " ", text))


def commands() -> list[str]:
    """Every ddm command in a fenced block or between backquotes, and in the examples of --help."""
    found = []
    for page in PAGES:
        text = typed(page.read_text())
        lines = [line for _, block in BLOCK.findall(text) for line in block.splitlines()]
        lines += re.findall(r"`(ddm [^`\n]+)`", BLOCK.sub("", text))
        found += [line.strip() for line in lines]
    for module in (compare, convert, data, doctor, evaluate, export, list_, report, sample, studio, train):
        found += [line.strip() for line in module.EXAMPLES.splitlines()]
    found = [line.split("  ")[0].split(" #")[0].rstrip() for line in found if re.match("ddm [a-z]", line)]
    return sorted({line for line in found if not re.search(r"[A-Z]{4,}|\.\.\.", line)})


@pytest.mark.parametrize("command", commands())
def test_every_command_shown_is_a_command(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(naming, "SHIPPED", tmp_path)
    verb, *arguments = shlex.split(command)[1:]
    assert verb in VERBS
    if "--help" in arguments:
        with pytest.raises(SystemExit, match="0"):
            main([verb, *arguments])
    elif verb == "train":
        assert main(["train", *arguments, "--dry-run"]) == 0, capsys.readouterr().err
    elif verb in ("sample", "evaluate") or (verb == "doctor" and arguments and arguments[0].startswith("runs/")):
        assert main([verb, *arguments]) == 2  # all but the source is right
        assert re.search("is neither a run folder nor a checkpoint|is not there", capsys.readouterr().err)
    elif verb == "report":  # all but the run is right
        assert main(["report", *arguments]) == 2
        assert "is not a run" in capsys.readouterr().err
    elif verb == "compare":  # all but the first run is right
        assert main(["compare", *arguments]) == 2
        assert re.search(r"source: 'runs/\w+' is n(ot a run|either a run folder nor)", capsys.readouterr().err)
    else:
        with pytest.raises(SystemExit, match="0"):
            main([verb, *arguments, "--help"])


def test_there_are_commands_to_check():
    assert len(commands()) > 12


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (code,) = [block for language, block in BLOCK.findall((ROOT / "README.md").read_text()) if language == "python"]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    exec(compile(code.replace("train(100)", "train(2)"), "README.md", "exec"), {})
    assert (tmp_path / "pictures.png").stat().st_size > 1000


def test_the_sampler_of_contributing_runs():
    (code,) = [block for kind, block in BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text()) if kind == "python"]
    try:
        exec(compile(code, "CONTRIBUTING.md", "exec"), dict(vars(heun)))
        sampler = heun.samplers.bind("euler(stretch=1.0)")
        grid = torch.linspace(8, 0, 9, dtype=torch.float64)
        *_, last = sampler(lambda x, sigma: torch.full_like(x, 0.25), torch.full((1, 1, 1, 1), 8.0), grid, None)
        assert last.x.item() == pytest.approx(0.25)
    finally:
        heun.samplers._parts.pop("euler", None)


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} -> {target}"
