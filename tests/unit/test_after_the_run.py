"""A trained policy after its run: which checkpoint, its card, its server's command, and the voted answer."""

import json
import sqlite3
from pathlib import Path

import pytest

from conf.load import load, to_yaml
from conf.schema.reward import RewardConfig
from conf.schema.root import TrainConfig
from operate.ask.__main__ import main
from operate.ask.answer import Answer, NoAnswer, choose
from operate.export.card import card
from operate.export.folder import ExportFailed, export
from operate.serve import ServeRefused, check_host, command, environment
from operate.trained_run import NotUsable, Trained, trained
from records.checkpoint import CheckpointInvalid
from rewards.sql.executor import ExecutorPool
from rollout.carriers import Completion


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with checkpoints 20 (evaluated best) and 40."""
    folder = tmp_path / "runs" / "mine"
    config = load(TrainConfig, "train", ["experiment=quickstart", f"run.dir={tmp_path / 'runs'}", "run.name=mine"])
    for step in (20, 40):
        policy = folder / "checkpoints" / f"step-{step:06d}" / "policy"
        policy.mkdir(parents=True)
        (policy / "config.json").write_text("{}")
        (policy / "model.safetensors").write_bytes(bytes([step]))
        (policy.parent / "MANIFEST.json").write_text("{}")
    (folder / "config.yaml").write_text(to_yaml(config))
    evaluation = {"eval/tasks": 320.0, "eval/n": 30.0, "eval/vote_ex": 0.85, "eval/mean_at_n": 0.75}
    rows = [{"step": 20, "eval/greedy_ex": 0.84} | evaluation, {"step": 40, "eval/greedy_ex": 0.8375} | evaluation]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_checkpoint_is_the_last_the_best_or_a_step(run, tmp_path):
    assert trained(run).step == 40
    assert trained(run, "best").step == 20
    assert trained(run, "20").policy == run / "checkpoints" / "step-000020" / "policy"
    with pytest.raises(NotUsable, match="no checkpoint 30: choose last, best or 20, 40"):
        trained(run, "30")
    with pytest.raises(NotUsable, match="no run folder"):
        trained(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": {"policy/model.safetensors": "one"}}'])
def test_a_damaged_manifest_is_one_sentence_for_all_who_use_a_checkpoint(run, text):
    (run / "checkpoints" / "step-000040" / "MANIFEST.json").write_text(text)
    with pytest.raises(CheckpointInvalid, match=r"MANIFEST.json is damaged \(.*remove .*step-000040"):
        trained(run)
    assert trained(run, "20").step == 20


def test_weights_that_were_cut_are_not_exported(run, tmp_path):
    folder = run / "checkpoints" / "step-000040"
    (folder / "MANIFEST.json").write_text(json.dumps({"step": 40, "files": {"policy/model.safetensors": 9}}))
    with pytest.raises(CheckpointInvalid, match=r"model.safetensors is missing or has changed"):
        trained(run)


def test_a_configuration_of_another_version_is_named(run):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text + "old_section: 1\n")
    with pytest.raises(NotUsable, match="written by another version: old_section is not a setting"):
        trained(run)


def test_the_card_tells_data_rewards_scores_with_intervals_and_how_to_serve(run):
    text = card(trained(run), code="c0ffee", data={"train": "4000 tasks, digest d1"})
    assert "| greedy execution accuracy | 83.8 % | 79.3 to 87.4 % |" in text
    assert "| mean accuracy of a candidate | 75.0 % |  |" in text
    assert "On 320 held-out tasks" in text
    assert "train 4000 tasks, digest d1" in text
    assert "Rewards: format, execution, atomic SQL operations.\n" in text
    assert "vllm serve FOLDER --max-model-len 256" in text


@pytest.mark.parametrize(
    ("counts", "said", "interval"),
    [
        ({"eval/scored": 80.0, "eval/unscorable_data": 7440.0}, "On 80 of 320 held-out tasks", "74.2 to 90.3 %"),
        # Rows of earlier versions: 240 tasks without a gold, 31 completions each.
        ({"eval/unscorable_data": 240.0 * 31}, "On 80 of 320 held-out tasks", "74.2 to 90.3 %"),
        ({"eval/unscorable": 240.0}, "On at least 80 of 320 held-out tasks", "74.2 to 90.3 %"),
        ({"eval/unscorable": 5000.0}, "On at least 0 of 320 held-out tasks", ""),
    ],
)
def test_the_cards_intervals_are_over_scored_tasks(run, counts, said, interval):
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[1]) | counts
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    text = card(trained(run), code="c", data={})
    assert said in text
    assert f"| greedy execution accuracy | 83.8 % | {interval} |" in text


def test_a_checkpoint_without_evaluation_says_so(run):
    (run / "metrics.jsonl").write_text("")
    assert "This checkpoint was not evaluated." in card(trained(run), code="c", data={})


def test_an_export_is_the_policy_with_its_card_and_never_overwrites(run, tmp_path):
    templates = trained(run, "20").policy / "additional_chat_templates"
    templates.mkdir()
    (templates / "tools.jinja").touch(mode=0o600)
    folder = export(trained(run, "20"), tmp_path / "out")
    assert (folder / templates.name).stat().st_mode & 0o777 == 0o755
    assert (folder / templates.name / "tools.jinja").stat().st_mode & 0o777 == 0o644
    assert (folder / "model.safetensors").read_bytes() == bytes([20])
    assert "20 steps of" in (folder / "README.md").read_text()
    with pytest.raises(ExportFailed, match="exists"):
        export(trained(run), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "runs"]


def test_the_server_runs_as_the_engine_of_training_did(run):
    chosen: Trained = trained(run)
    line = command(chosen, host="127.0.0.1", port=8001, more=["--seed", "3"])
    assert line[line.index("--model") + 1] == str(chosen.policy)
    assert line[line.index("--max-model-len") + 1] == "256"
    assert line[line.index("--served-model-name") + 1] == "mine"
    assert line[-3:] == ["--enforce-eager", "--seed", "3"]
    assert environment(chosen)["VLLM_CPU_KVCACHE_SPACE"] == "1"


def test_a_server_for_others_needs_a_key():
    check_host("127.0.0.1", None)
    check_host("localhost", None)
    check_host("0.0.0.0", "a key")
    with pytest.raises(ServeRefused, match="VLLM_API_KEY"):
        check_host("0.0.0.0", None)
    with pytest.raises(ServeRefused, match="no IP address"):
        check_host("example", "a key")


def completion(text: str, logprob: float = -1.0) -> Completion:
    return Completion(text=text, token_ids=(1,), logprobs=(logprob,), version_spans=((0, 0),), finish_reason="stop")


def test_a_wrong_database_is_refused_before_the_engine(run, tmp_path, database, monkeypatch, capsys):
    def start(*_: object, **__: object) -> None:
        raise AssertionError("an engine has started")

    monkeypatch.setattr("operate.ask.__main__.ask", start)
    (tmp_path / "text.sqlite").write_text("no database")
    (tmp_path / "empty.sqlite").write_bytes(b"")
    (tmp_path / "folder.sqlite").mkdir()
    for file in ("absent.sqlite", "text.sqlite", "empty.sqlite", "folder.sqlite"):
        monkeypatch.setattr("sys.argv", ["ask", str(run), "--db", str(tmp_path / file), "how many?"])
        assert main() == 1
        told = capsys.readouterr().err
        assert told.startswith("error: --db")
        assert str(tmp_path / file) in told
        assert told.count("\n") == 1
    monkeypatch.setattr("sys.argv", ["ask", str(tmp_path / "no-run"), "--db", database, "how many?"])
    assert main() == 1
    assert "no run folder" in capsys.readouterr().err


@pytest.fixture
def database(tmp_path: Path) -> str:
    file = tmp_path / "shop.sqlite"
    connection = sqlite3.connect(file)
    connection.executescript("CREATE TABLE item (name TEXT, price REAL); INSERT INTO item VALUES ('a', 1), ('b', 2);")
    connection.close()
    return str(file)


def vote(database: str, *texts: str) -> Answer:
    reward = RewardConfig.model_validate({"format": {"thinking": False}})
    with ExecutorPool(1) as executors:
        return choose(
            [completion(text) for text in texts],
            database=database,
            question="which?",
            voter="value_aware",
            denotation="spider",
            reward=reward,
            executors=executors,
        )


def test_the_answer_is_the_result_that_most_candidates_share(database):
    answer = vote(
        database,
        "SELECT name FROM item WHERE price > 1",
        "SELECT name FROM item WHERE price >= 2",
        "SELECT max(price) FROM item",
        "SELECT nonsense FROM item",
        "DROP TABLE item",
    )
    assert answer.execution.rows == (("b",),)
    assert (answer.agreeing, answer.ran, answer.asked) == (2, 3, 5)
    assert vote(database, "SELECT count(*) FROM item").execution.rows == ((2,),)


def test_no_candidate_that_runs_is_an_error_with_its_reason(database):
    with pytest.raises(NoAnswer, match="none of 1 candidates ran.*no such column"):
        vote(database, "SELECT nonsense FROM item")
