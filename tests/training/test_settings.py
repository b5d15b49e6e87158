"""The option that names the columns of a target says what is learnt, on the command line and in files of settings."""

import pytest

from hf_galaxy.commands import finetune, pretrain
from hf_galaxy.errors import BadInput
from hf_galaxy.targets import TARGETS, column_option, target_class
from hf_galaxy.training.settings import as_recorded, to_record

SHARED = ["--dataset", "data/x", "--out", "runs/x", "--start", "a.b"]


@pytest.mark.parametrize("command", [finetune.command, pretrain.command], ids=["finetune", "pretrain"])
@pytest.mark.parametrize(
    ("words", "task"),
    [
        ([], "votes"),
        (["--tree", "gz2"], "votes"),
        (["--label", "ring"], "classes"),
        (["--label=ring=1", "--recipe", "zoobot2"], "classes"),
        (["--values", "z", "mass"], "values"),
        (["--labels", "ring", "bar"], "labels"),
    ],
)
def test_an_option_names_the_target_and_is_recorded_as_if_the_task_were_given(command, words, task):
    settings = command.read([*SHARED, *words])
    settings.check()
    assert settings.task == task
    assert to_record(settings) == to_record(command.read([*SHARED, *words, "--task", task]))


@pytest.mark.parametrize(("option", "task"), [("label: ring", "classes"), ("labels: [ring, bar]", "labels")])
def test_a_file_of_settings_names_it_too(option, task, tmp_path):
    (tmp_path / "options.yaml").write_text(option)
    assert finetune.command.read([*SHARED, "--config", str(tmp_path / "options.yaml")]).task == task


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--label", "ring", "--values", "z"], "--label and --values: each names a target; give one of them"),
        (["--tree", "gz2", "--label", "ring"], "--tree and --label: each names a target"),
        (["--task", "votes", "--label", "ring"], "--label: is for --task classes; --task votes has --tree"),
        (["--task=values", "--label", "ring"], "--label: is for --task classes; --task values has --values"),
    ],
)
def test_two_targets_are_refused(words, message):
    with pytest.raises(BadInput, match=message):
        finetune.command.read([*SHARED, *words]).check()


@pytest.mark.parametrize(
    ("recorded", "activation"),
    [
        ({"task": "votes"}, "sigmoid"),
        ({"task": "votes", "likelihood": "dirichlet_multinomial"}, "sigmoid"),
        ({"task": "votes", "head_activation": "softplus"}, "softplus"),
        # Theirs is not used: such a run goes on with the default.
        ({"task": "votes", "likelihood": "multinomial"}, "mixture"),
        ({"task": "votes", "likelihood": "multinomial", "head_activation": "sigmoid"}, "mixture"),
        ({"task": "classes", "label": "ring"}, "mixture"),
        ({"task": "classes", "label": "ring", "head_activation": "softplus"}, "mixture"),
    ],
)
def test_a_record_from_before_there_was_a_choice_of_activations_is_of_the_sigmoid(recorded, activation):
    assert as_recorded(recorded)["head_activation"] == activation


def test_the_option_is_the_first_of_its_target():
    assert all(target_class(task).options[0] == column_option(task) for task in TARGETS)
