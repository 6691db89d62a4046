"""The ablation's table and plot from run folders with known numbers, and the settings of its runs."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from conf.load import load
from conf.schema.ablation import AblationConfig
from conf.schema.root import TrainConfig
from measure.ablation.__main__ import run
from measure.ablation.plot import draw
from measure.ablation.results import as_json, compare, markdown, read_run
from measure.ablation.runs import PlannedRun, finished, planned, train
from measure.processes import RunFailed

SMALL = AblationConfig(output="out", seeds=(0, 1), steps=2, evaluate_every=2, n=4, variants=("without_atomic",))


def write_run(folder: Path, means: dict[int, float], *, steps: int = 2, status: str = "finished") -> None:
    """A run whose accuracies are `means` (of the candidates) and 0.1 more (greedy, voting and recall)."""
    folder.mkdir(parents=True)
    rows = [{"step": step, "reward/accuracy": 0.5} for step in range(1, steps + 1)]
    for step, mean in means.items():
        others = dict.fromkeys(("eval/greedy_ex", "eval/vote_ex", "eval/recall_at_n"), mean + 0.1)
        rows.append({"step": step, "eval/mean_at_n": mean, **others})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "summary.json").write_text(json.dumps({"status": status, "steps": steps, "wall_s": 120.0}))


def write_all(output: Path) -> None:
    write_run(output / "finer-seed0", {0: 0.5, 2: 0.7})
    write_run(output / "finer-seed1", {0: 0.4, 2: 0.8})
    write_run(output / "without_atomic-seed0", {2: 0.65})
    write_run(output / "without_atomic-seed1", {2: 0.6})


def outcomes(output: Path):
    write_all(output)
    return [read_run(output / f"{v}-seed{s}", variant=v, seed=s) for s in (0, 1) for v in ("finer", "without_atomic")]


def test_differences_are_taken_seed_by_seed(tmp_path):
    comparison = compare(outcomes(tmp_path), reference="finer")
    gain = comparison.variants["without_atomic"].gain["mean"]
    assert gain.mean == pytest.approx(-0.125)
    assert (gain.low, gain.high) == (pytest.approx(-0.2), pytest.approx(-0.05))
    assert gain.deviation == pytest.approx(0.15 / 2**0.5)
    assert comparison.variants["finer"].gain["mean"].mean == pytest.approx(0.3)


def test_a_variant_starts_where_the_reference_was_evaluated_before_training(tmp_path):
    comparison = compare(outcomes(tmp_path), reference="finer")
    assert comparison.variants["without_atomic"].curve[0]["mean"].mean == pytest.approx(0.45)
    assert sorted(comparison.variants["without_atomic"].curve) == [0, 2]


def test_the_table_holds_mean_deviation_and_difference(tmp_path):
    lines = markdown(compare(outcomes(tmp_path), reference="finer"), n=4).splitlines()
    assert lines[2].split(" | ")[:3] == ["| before training", "55.0 ± 7.1", "45.0 ± 7.1"]
    assert lines[3].split(" | ")[2] == "75.0 ± 7.1"
    assert lines[4].split(" | ")[2] == "62.5 ± 3.5"
    assert lines[4].split(" | ")[-2:] == ["-12.5 (-20.0 to -5.0)", "2.0 |"]
    assert len({line.count("|") for line in lines}) == 1


def test_the_plot_is_xml_with_the_reference_behind_every_variant(tmp_path):
    picture = ElementTree.fromstring(draw(compare(outcomes(tmp_path), reference="finer"), n=4))
    lines = picture.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2
    ends = [line.attrib["points"].split()[-1].split(",") for line in lines]
    assert ends[0][0] == ends[1][0]
    assert float(ends[0][1]) < float(ends[1][1])  # 0.75 of finer is drawn above 0.625


def test_json_holds_every_run(tmp_path):
    told = json.loads(json.dumps(as_json(compare(outcomes(tmp_path), reference="finer"))))
    assert [(r["variant"], r["seed"]) for r in told["runs"]][:2] == [("finer", 0), ("without_atomic", 0)]
    assert told["variants"]["finer"]["curve"]["2"]["mean"]["mean"] == pytest.approx(0.75)


def test_finished_runs_are_read_and_not_made_again(tmp_path, capsys):
    write_all(tmp_path)
    assert run(SMALL.model_copy(update={"output": str(tmp_path)})) == 0
    assert "finer without atomic" in capsys.readouterr().out
    assert {file.name for file in tmp_path.glob("ablation.*")} == {"ablation.json", "ablation.md", "ablation.svg"}


@pytest.mark.parametrize(("status", "steps"), [("stopped", 2), ("finished", 1)])
def test_a_run_that_ended_early_is_not_finished(tmp_path, status, steps):
    plan = PlannedRun(variant="finer", seed=0, folder=tmp_path / "finer-seed0", arguments=())
    assert not finished(plan, 2)
    write_run(plan.folder, {0: 0.5}, status=status, steps=steps)
    assert not finished(plan, 2)


def test_a_run_that_fails_names_its_log(tmp_path):
    plan = PlannedRun(variant="finer", seed=0, folder=tmp_path / "finer-seed0", arguments=("no_such_setting=1",))
    with pytest.raises(RunFailed, match=r"exit code 2 .*finer-seed0\.log"):
        train(plan, steps=2, timeout_s=60)
    assert "no_such_setting" in plan.log.read_text()


def test_every_variant_differs_from_the_reference_in_its_component_alone():
    config = AblationConfig(output="out", seeds=(0,))
    loaded = {plan.variant: load(TrainConfig, "train", plan.arguments) for plan in planned(config)}
    finer = loaded["finer"]
    assert finer.prompt.thinking
    assert all(part.enabled for part in (finer.reward.execution, finer.reward.atomic, finer.reward.memory))
    for component in ("execution", "atomic", "memory", "format"):
        other = loaded[f"without_{component}"]
        assert differing(finer.reward.model_dump(), other.reward.model_dump()) == {f"{component}.enabled"}
    for other in loaded.values():
        assert other.evaluation.before == (other is finer)
        same = {"run", "reward", "evaluation"}
        assert other.model_dump(exclude=same) == finer.model_dump(exclude=same)


def differing(left: dict, right: dict, prefix: str = "") -> set[str]:
    found = set()
    for key in left.keys() | right.keys():
        a, b = left.get(key), right.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= differing(a, b, f"{prefix}{key}.")
        elif a != b:
            found.add(f"{prefix}{key}")
    return found
