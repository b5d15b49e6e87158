"""The card of a model is a pure function of its record, and what that lacks it calls not measured."""

import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from PIL import Image
from sklearn.metrics import r2_score

from hf_galaxy import load_tree
from hf_galaxy.data.card_facts import DatasetFacts
from hf_galaxy.errors import BadInput
from hf_galaxy.evaluation.class_metrics import ClassMetrics
from hf_galaxy.evaluation.constant_votes import ConstantVotes
from hf_galaxy.evaluation.value_metrics import ConstantValues, ValueMetrics
from hf_galaxy.evaluation.vote_metrics import VoteMetrics
from hf_galaxy.losses import dirichlet_multinomial_nll, expected_fractions
from hf_galaxy.reports import card_data, model_card, run_figures
from hf_galaxy.reports.run_record import RunRecord
from hf_galaxy.reports.target_report import report_of
from hf_galaxy.reports.text import interval, number
from hf_galaxy.reports.vote_report import in_volunteers

TREE = load_tree("gz_rings")


CARD = DatasetFacts(
    "Rings", "cc-by-nc-sa-4.0", "lab/rings", "a telescope", "- Rings look alike.", "@misc{a,\n}\n\n@misc{b,\n}"
)


def record(task="votes", keyed=True, **changes):
    """Of a run that was trained on votes for rings, or on two classes."""
    generator = torch.Generator().manual_seed(0)
    if task == "votes":
        constants = ConstantVotes(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.5]))
        metrics = VoteMetrics(TREE, constants, min_votes=20)
        votes = torch.randint(0, 9, (50, 2), generator=generator)
        votes[0] = torch.tensor([20, 10])
        concentrations = 1 + 9 * torch.rand(50, 2, generator=generator)
        out = SimpleNamespace(
            fractions=expected_fractions(concentrations, TREE), concentrations=concentrations,
            nll=dirichlet_multinomial_nll(votes, concentrations, TREE), weights=None,
        )  # fmt: skip
        batch, about = {"votes": votes}, {"tree": "gz_rings", "questions": ["ring"]}
    else:
        metrics = ClassMetrics(["a", "b"], torch.zeros(2))
        batch = {"labels": torch.tensor([0, 1] * 25)}
        out, about = SimpleNamespace(logits=torch.randn(50, 2, generator=generator)), {"classes": ["a", "b"]}
    metrics.update(batch | ({"keys": torch.arange(50)} if keyed else {}), out)
    history = [{"galaxies": 70 * n, "training_loss": 4 / n, "validation_loss": 3 + (n - 2) ** 2} for n in (1, 2, 3)]
    fields = {
        "command": "scripts/pretrain.py --dataset d",
        "settings": {
            "task": task, "epochs": 3, "label": None if task == "votes" else "kind", "likelihood": "dirichlet_multinomial", "seed": 1,
        },
        "dataset": {
            "name": "d", "title": "Rings", "cards": [vars(CARD)], "splits": {"train": 70, "validation": 10, "test": 50}, **about,
        },
        "model": {
            "backbone": "test_convnext", "start": None, "image_size": 64, "crop": 0.5, "flops": 1000,
            "parameters": {"backbone": 1234567, "head": 10},
        },
        "environment": {"device": "CPU", "processes": 1, "precision": "no"},
        "training": {"best_epoch": 2, "history": history, "losses": [[10, 9.0], [70, 5.0], [210, 4.0]], "seconds": 12.3},
        "results": {"test": metrics.cpu().compute()},
        "finished": True,
    }  # fmt: skip
    return RunRecord(**fields | changes)


@pytest.mark.parametrize("task", ["votes", "classes"])
def test_a_model_card_is_a_function_of_its_record(task, tmp_path):
    text = model_card.model_card(record(task))
    assert "after 2 of at most 3 epochs" in text
    assert "64 x 64 pixels, the middle 50 %" in text
    assert "1,234,567 parameters" in text
    assert re.search("70 galaxies, .* a telescope", text)
    assert "- Rings look alike." in text
    assert "6.3e+05: 1e+03 for" in text, "210 pictures, three times through"
    assert ("galaxy-morphology" if task == "votes" else 'pipeline("image-classification"') in text
    assert text.count("@misc{") == 3
    record(task).save(tmp_path)
    assert RunRecord.load(tmp_path) == record(task)
    assert model_card.model_card(RunRecord.load(tmp_path)) == text
    drawn = run_figures.figures(record(task))
    assert drawn.keys() == {"figures/loss.png", "figures/calibration.png"}
    assert drawn == run_figures.figures(RunRecord.load(tmp_path)), "to the byte"
    for path, content in drawn.items():
        assert Image.open(io.BytesIO(content)).width == 1600
        assert f"]({path})" in text


def test_figures_have_intervals_over_galaxies():
    results = record().results["test"]
    low, high = np.quantile(results["bootstrap"]["loss"]["model"], (0.05, 0.95))
    loss = f"{results['loss']['model']:#.3g}\xa0[{low:#.3g},\xa0{high:#.3g}]"
    assert f"All 50 galaxies: loss {loss}, baseline" in model_card.model_card(record())
    rows = model_card.metrics_table(results, "votes").splitlines()
    assert sum("[" in row for row in rows) == 3, "all galaxies, the campaign, the question"
    assert "nan" not in model_card.metrics_table(results, "votes")
    classes = model_card.metrics_table(record("classes").results["test"], "classes")
    assert classes.count("[") == 5, "loss, two accuracies, and two figures of the ranking"


def test_an_interval_that_is_not_symmetric_is_shown_as_it_is():
    skewed = {"galaxies": 9, "loss": {"model": 1.0, "baseline": 2.0}}
    drawn = [0.99] * 50 + [1.0] * 100 + [3.0] * 50
    table = model_card.metrics_table(skewed | {"bootstrap": {"loss": {"model": drawn}}}, "classes")
    assert "| 1.00\xa0[0.990,\xa03.00] | 2.00 |" in table


def test_a_figure_that_is_the_same_in_all_replicates_has_no_interval():
    results = record().results["test"]
    assert results["questions"]["ring"]["galaxies_with_enough_votes"] == 1
    drawn = [x for x in results["bootstrap"]["questions"]["ring"]["rmse"]["model"] if x is not None]
    assert 100 < len(drawn) < 200, "in the others it is not"
    assert len(set(drawn)) == 1
    row = model_card.metrics_table(results, "votes").splitlines()[-1]
    assert row.startswith("| ring | 49 | ")
    assert row.count("[") == 1, row


def test_what_an_older_record_lacks_is_not_measured():
    old = record(keyed=False)
    del old.dataset["cards"]
    text = model_card.model_card(old)
    assert "### Calibration\n\nNot measured." in text
    assert "\xa0[" not in text
    assert "| licence | not stated |" in text
    assert run_figures.figures(old).keys() == {"figures/loss.png"}
    few = VoteMetrics(TREE, ConstantVotes(*torch.ones(3, 2) / 2), min_votes=20)
    few.update({"votes": torch.tensor([[2, 6]])}, SimpleNamespace(fractions=torch.ones(1, 2) / 2, nll=torch.ones(1, 1)))
    table = model_card.metrics_table(few.cpu().compute(), "votes")
    assert "| ring | 1 | 1.00 | " in table
    assert "| 0 | not measured | not measured |" in table, "one galaxy, with fewer votes than enough"


def test_limits_name_questions_of_which_little_is_known():
    text = model_card.model_card(record())
    assert re.search(r"[Ff]ew test galaxies .*: ring \(1\)\.", text)
    worse = record()
    worse.results["test"]["questions"]["ring"]["nll"] |= {"model": 2.0, "baseline": 1.5}
    assert "no better than the constant for: ring." in model_card.model_card(worse)
    better = record()
    better.results["test"]["questions"]["ring"]["nll"] |= {"model": 1.0, "baseline": 1.5}
    assert "no better than the constant for" not in model_card.model_card(better)


def test_a_card_says_how_far_the_loss_is_above_that_of_the_true_fractions():
    ours = record()
    results, drawn = ours.results["test"], ours.results["test"]["bootstrap"]
    text = model_card.model_card(ours)
    above = results["loss"]["model"] - results["loss"]["oracle"]
    low, high = np.quantile(np.subtract(drawn["loss"]["model"], drawn["loss"]["oracle"]), (0.05, 0.95))
    assert low < above < high
    cell = interval({"value": above, "low": low, "high": high}).replace(" ", "\xa0")
    assert f"Above that of the true vote fractions: {cell}, baseline" in text
    assert f"would have about {number(results['loss']['oracle'])}." in text
    rows = [line for line in text.splitlines() if line.startswith(("| gz_rings |", "| ring |"))]
    nll = results["campaigns"]["gz_rings"]["nll"]
    assert f"| {number(nll['baseline'])} | {number(nll['model'] - nll['oracle'])}\xa0[" in rows[0]
    assert "| too few galaxies |" in rows[1], "with votes"
    assert "| above the oracle |" in text
    assert "| against true fractions |" in text
    nowhere = {
        figure: dict.fromkeys(pair) for figure, pair in results["campaigns"]["gz_rings"].items() if figure != "galaxies"
    }
    table = report_of(ours).table(results | {"campaigns": {"of no galaxy": nowhere | {"galaxies": 0}}})
    assert "| of no galaxy | 0 | not measured | not measured | too few galaxies |" in table
    # Before it was measured.
    del results["loss"]["oracle"]
    for of in (results, drawn):
        for part in (*of["campaigns"].values(), *of["questions"].values()):
            part["nll"].pop("oracle", None)
            part.pop("true_rmse")
    earlier = model_card.model_card(ours)
    assert "that of the true vote fractions is higher, and was not measured." in earlier
    assert "oracle" not in earlier
    assert "true fractions |" not in earlier


def test_a_class_has_its_recall_and_its_precision():
    unsure = record("classes")
    unsure.results["test"]["confusion"] = [[8, 2], [12, 28]]
    text = model_card.model_card(unsure)
    assert "| a | 10 | 0.800 | 0.400 | b |" in text
    assert "| b | 40 | 0.700 | 0.933 | a |" in text


@pytest.mark.parametrize("task", ["votes", "classes"])
def test_the_yaml_is_what_the_hub_reads(task, tmp_path):
    (tmp_path / "README.md").write_text(model_card.model_card(record(task)))
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.library_name, data.datasets) == ("cc-by-nc-sa-4.0", "transformers", ["lab/rings"])
    assert data.base_model is None
    test = record(task).results["test"]
    if task == "votes":
        expected = dict(test["campaigns"]["gz_rings"])
        del expected["galaxies"]
    else:
        names = {"nll": "loss", "roc_auc": "auc"}
        same = ("accuracy", "balanced_accuracy", "average_precision")
        expected = {name: test[ours] for name, ours in (names | dict(zip(same, same, strict=True))).items()}
    values = {result.metric_type: result.metric_value for result in data.eval_results}
    assert values == pytest.approx({name: pair["model"] for name, pair in expected.items()}, rel=1e-5)
    assert {(r.dataset_type, r.dataset_name, r.dataset_split) for r in data.eval_results} == {
        ("lab/rings", "Rings", "test")
    }
    ((path, text),) = card_data.eval_results(record(task)).items()
    assert path == ".eval_results/rings.yaml"
    entries = parse_eval_result_entries(yaml.safe_load(text))
    assert {entry.dataset_id for entry in entries} == {"lab/rings"}
    about = "gz_rings" if task == "votes" else "kind"
    ours = {entry.task_id: entry.value for entry in entries}
    assert ours[f"{about}_accuracy"] == pytest.approx(expected["accuracy"]["model"], rel=1e-5)
    assert len(ours) == len(entries) == len(expected)


def test_campaigns_are_configurations_of_one_dataset(tmp_path):
    several = record()
    figures = several.results["test"]["campaigns"].pop("gz_rings")
    several.results["test"]["campaigns"] = {"one": figures, "two": figures}
    results = ModelCard(model_card.model_card(several)).data.eval_results
    assert {(r.dataset_config, r.dataset_name) for r in results} == {("one", "Rings, one"), ("two", "Rings, two")}
    assert len(results) == 10
    ((_, text),) = card_data.eval_results(several).items()
    assert len({entry["dataset"]["task_id"] for entry in yaml.safe_load(text)}) == 10


def of_values(known, predicted, names):
    """The record of a run on values, (N, K) with NaN where missing, measured beside the constants of the same galaxies."""
    metrics = ValueMetrics(names, ConstantValues.of(known.numpy()))
    metrics.update({"labels": known, "keys": torch.arange(len(known))}, SimpleNamespace(values=predicted))
    measured = record(task="values", results={"test": metrics.cpu().compute()})
    measured.settings["label"], measured.dataset["values"] = None, names
    return measured


def test_the_yaml_of_values_says_what_was_measured():
    generator = torch.Generator().manual_seed(1)
    known, noise = torch.randn(2, 40, 2, generator=generator, dtype=torch.float64)
    known[:7, 1] = torch.nan
    predicted = known.nan_to_num() + 0.3 * noise
    ours = of_values(known, predicted, ["redshift", "model"])
    expected, scaled = {}, []
    for name, true, ours_of_it in zip(("redshift", "model"), known.T.numpy(), predicted.T.numpy(), strict=True):
        error = (ours_of_it - true)[~np.isnan(true)]
        scaled.append((ours_of_it - true) / np.nanstd(true))
        expected[f"RMSE of {name}"] = np.sqrt(np.mean(error**2))
        expected[f"MAE of {name}"] = np.mean(abs(error))
        expected[f"R² of {name}"] = r2_score(true[~np.isnan(true)], ours_of_it[~np.isnan(true)])
    loss = "mean squared error, in standard deviations of the training split"
    expected[loss] = np.mean(np.nanmean(np.square(scaled), axis=0))

    data = ModelCard(model_card.model_card(ours)).data
    assert {r.metric_name: r.metric_value for r in data.eval_results} == pytest.approx(expected, rel=1e-5)
    assert {r.task_name for r in data.eval_results} == {"redshift, model"}
    assert data.metrics == ["standardised_mse", "rmse", "mae", "r_squared"]
    ((_, text),) = card_data.eval_results(ours).items()
    entries = {entry.task_id: entry.value for entry in parse_eval_result_entries(yaml.safe_load(text))}
    of_each = {"RMSE of {}": "{}_rmse", "MAE of {}": "{}_mae", "R² of {}": "{}_r2"}
    tasks = {ours.format(name): hub.format(name) for ours, hub in of_each.items() for name in ("redshift", "model")}
    tasks[loss] = "standardised_mse"
    assert entries == pytest.approx({tasks[name]: value for name, value in expected.items()}, rel=1e-5)


def test_figures_of_values_that_are_not_known_are_left_out():
    known = torch.tensor([[1.0], [1.0]])
    ours = of_values(known, known + 0.5, ["redshift"])
    assert ours.results["test"]["values"]["redshift"]["r2"]["model"] is None
    assert {(name, figure) for name, figure, _ in card_data.headline(ours)} >= {("redshift", "rmse")}
    assert ("redshift", "r2") not in {(name, figure) for name, figure, _ in card_data.headline(ours)}


def test_a_card_shows_average_precision_where_it_was_measured():
    ours = record("classes")
    pair = ours.results["test"]["average_precision"]
    text = model_card.model_card(ours)
    assert f"| average_precision | {pair['model']:#.3g}\xa0[0." in text
    assert "Average precision is the mean precision over all recalls of b;" in text
    ours.dataset["classes"].append("c")
    del ours.results["test"]["confusion"]  # of two classes
    assert "mean precision over all recalls, averaged over the classes;" in model_card.model_card(ours)
    assert "not measured" not in text
    ours.results["test"]["auc"]["model"] = None
    assert "Both are not measured, as a class has no test galaxy." in report_of(ours).legend(ours)
    del ours.results["test"]["average_precision"], ours.results["test"]["bootstrap"]["average_precision"]
    earlier = model_card.model_card(ours)
    assert "verage" not in earlier.split("## How good it is")[1].split("###")[0]
    assert "average_precision" not in earlier


@pytest.mark.parametrize("task", ["votes", "classes"])
def test_the_yaml_names_figures_and_what_is_learnt(task):
    results = ModelCard(model_card.model_card(record(task))).data.eval_results
    names = {r.metric_name for r in results}
    if task == "votes":
        assert names == {
            "negative log-likelihood", "RMSE of vote fractions, mean of questions", "MAE of vote fractions, mean of questions",
            "RMSE against the true fractions, mean of questions", "accuracy, mean of questions",
        }  # fmt: skip
    else:
        assert names == {"negative log-likelihood", "accuracy", "balanced accuracy", "auc", "average precision"}
    assert {r.task_name for r in results} == {"votes of volunteers" if task == "votes" else "kind"}


def test_what_was_measured_on_several_datasets_is_not_said_of_the_one_that_stands_on_the_hub():
    ours = record()
    ours.dataset["cards"].append(vars(CARD) | {"hub_id": None})
    ours.dataset["title"] = "Rings and Bars"
    data = ModelCard(model_card.model_card(ours)).data
    assert data.datasets == ["lab/rings"], "it did learn from that"
    assert {(r.dataset_type, r.dataset_name) for r in data.eval_results} == {("rings_and_bars", "Rings and Bars")}
    assert card_data.eval_results(ours) == {}


def test_what_was_measured_on_a_fold_is_not_said_of_the_published_test_split():
    ours = record()
    assert card_data.eval_results(ours)
    assert "fold 2" not in model_card.model_card(ours)
    ours.settings["fold"] = 2
    card = model_card.model_card(ours)
    assert card_data.eval_results(ours) == {}
    assert "These are fold 2 of 5" in card
    assert {r.dataset_split for r in ModelCard(card).data.eval_results} == {"fold 2 of 5"}


def test_what_a_person_decided_goes_before_what_the_data_say():
    ours = record(publication={"repo": "lab/model", "license": "mit", "datasets": ["lab/copy"], "base_model": "timm/x"})
    text = model_card.model_card(ours)
    data = ModelCard(text).data
    assert (data.license, data.datasets, data.base_model, data.model_name) == ("mit", ["lab/copy"], "timm/x", "model")
    assert 'folder = "lab/model"' in text
    assert "under mit, chosen by their publishers" in text
    assert list(card_data.eval_results(ours)) == [".eval_results/copy.yaml"]


def test_a_licence_is_taken_over_only_if_all_data_agree():
    ours = record()
    assert card_data.licence(ours) == "cc-by-nc-sa-4.0"
    ours.dataset["cards"].append(vars(CARD) | {"license": "mit"})
    assert card_data.licence(ours) is None
    assert ModelCard(model_card.model_card(ours)).data.license == "unknown"
    assert card_data.eval_results(ours) == {}, "measured on both together"
    ours.dataset["cards"][0] = vars(CARD) | {"license": "mit"}
    assert card_data.licence(ours) == "mit"
    local = record(dataset=record().dataset | {"cards": [vars(CARD) | {"hub_id": None}]})
    assert (card_data.datasets(local), card_data.eval_results(local)) == ([], {})


def test_a_class_table_shows_each_figure_beside_its_baseline():
    results = {"galaxies": 7, "accuracy": {"model": 0.8, "baseline": 0.5}, "auc": {"model": None, "baseline": None}}
    table = model_card.metrics_table(results | {"confusion": [[1]]}, "classes")
    assert "| accuracy | 0.800 | 0.500 |" in table
    assert "| auc | not measured | not measured |" in table
    assert "confusion" not in table


def test_a_card_of_values_shows_each_beside_its_constant():
    figures = {"rmse": {"model": 0.0123456, "baseline": 12345.6}, "mae": {"model": 2.0, "baseline": None}}
    value = {"galaxies": 6, **figures, "r2": {"model": 0.75, "baseline": -0.01}}
    of_values = record(task="values")
    of_values.dataset["values"] = ["redshift"]
    of_values.results = {"test": {"galaxies": 7, "loss": {"model": 0.25, "baseline": 1}, "values": {"redshift": value}}}
    text = model_card.model_card(of_values)
    assert "| redshift | 6 | 0.0123 | 12,346 | 2.00 | not measured | 0.750 | -0.0100 |" in text
    assert "All 7 galaxies: loss 0.250, baseline 1.00." in text
    assert "Predicts numbers from a galaxy's picture, in the units of the dataset: redshift." in text
    assert "dict(zip(model.config.values, answer.values[0].tolist()))" in text
    assert "MAE (mean absolute error) its median" in text
    assert "Calibration" not in text
    assert "Not measured" not in text


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ("all", "| 6.3e+05: 1e+03 for the forward pass of a picture, twice as many for the backward pass;"),
        ("last:2", "| at most 6.3e+05: 1e+03 for the forward pass of a picture, at most twice as many"),
        ("lora:4", "| at most 6.3e+05: 1e+03 for the forward pass of a picture, at most twice as many"),
        ("head", "| 8e+04: 1e+03 for the forward pass of a picture, once for each training and validation galaxy;"),
    ],
)
def test_compute_is_of_what_was_trained(train, words):
    ours = record()
    ours.settings["train"] = train
    if train == "head":
        ours.training["features"] = {"seconds": 1.0, "bytes": 100}
    assert f"| floating-point operations, estimated {words}" in model_card.model_card(ours)
    del ours.model["flops"]
    assert "floating-point operations" not in model_card.model_card(ours)


@pytest.mark.parametrize("setting", [{"label_smoothing": 0.1}, {"class_weights": "balanced"}, {}])
def test_a_card_of_classes_says_that_its_loss_is_the_plain_one_where_it_was_not_learnt_by(setting):
    of_classes = record(task="classes")
    of_classes.dataset["classes"] = ["a", "b"]
    of_classes.settings |= setting
    of_classes.results = {}
    shown = "without the label smoothing and class weights" in model_card.model_card(of_classes)
    assert shown == bool(setting)


def test_a_file_that_is_no_run_record_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"is no run folder \(it has no run.json\)"):
        RunRecord.load(tmp_path)
    (tmp_path / "run.json").write_text('{"steps": 3}')
    with pytest.raises(BadInput, match=r"run.json: is no run record .*steps"):
        RunRecord.load(tmp_path)


@pytest.mark.parametrize(
    ("worth", "words", "short"),
    [
        ((3.21, 2.5, 4.06), "3.2 [2.5, 4.1]", "3"),
        ((9, 8.2, 9), "9 or more [8.2, 9 or more]", "9 or more"),
        ((9, 9, 9), "9 or more", "9 or more"),
        ((0, 0, 0), "0.0", "0"),
    ],
)
def test_what_predictions_are_worth_in_volunteers_is_in_words(worth, words, short):
    shown = record()
    value, low, high = worth
    ring = {"value": value, "low": low, "high": high, "most": 9, "galaxies": 1234}
    shown.results["test"]["volunteers"] = {"ring": ring, "rare": dict.fromkeys(ring) | {"galaxies": 4}}
    assert in_volunteers(ring, short=True) == short
    text = model_card.model_card(shown)
    assert "### What it is worth in volunteers" in text
    assert re.search(rf"^\| ring \| 1234 \| {re.escape(words)} \|$", text, re.MULTILINE)
    assert "| rare |" not in text, "too few galaxies"


def test_what_predictions_are_worth_is_not_said_where_it_was_not_measured():
    shown = record()
    assert shown.results["test"].pop("volunteers")["ring"]["galaxies"] == 49, "one has no votes"
    assert "worth in volunteers" not in model_card.model_card(shown)
