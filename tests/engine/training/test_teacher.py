"""The mean teacher: its labels, its thresholds, and its state in a checkpoint."""

import numpy as np
import pytest
import runs
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from d2_ssod.engine.training.averaging import AverageWeights
from d2_ssod.engine.training.teacher import CountThresholds, Teacher

SIZE = (32, 48)


@pytest.fixture(autouse=True)
def storage():
    with EventStorage() as storage:
        yield storage


class Scripted(nn.Module):
    """A detector that finds in each image what it is told; its one weight is the first score."""

    def __init__(self, scores, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(scores[0]))
        self.scores, self.classes = scores, classes
        self.seen = []

    def forward(self, inputs):
        assert not self.training
        self.seen += inputs
        return [{"instances": self.find(each)} for each in inputs]

    def find(self, image):
        found = Instances((image["height"], image["width"]))
        scores = [float(self.weight), *self.scores[1:]]
        found.pred_boxes = Boxes(torch.tensor([[i, 0.0, i + 5.0, 9.0] for i in range(len(scores))]))
        found.scores = torch.tensor(scores)
        found.pred_classes = torch.tensor(self.classes)
        return found


def teacher_of(model, objects=(1.0, 1.0), **settings):
    averaging = AverageWeights(model, 0.9)
    averaging.before_train()
    return Teacher(model, averaging, np.array(objects), **settings)


def batch_of(*is_pseudo):
    return [
        {
            "image": torch.full((3, *SIZE), 9, dtype=torch.uint8),
            "weak_image": torch.zeros((3, *SIZE), dtype=torch.uint8),
            "instances": "the labels of the file",
            "is_pseudo": flag,
        }
        for flag in is_pseudo
    ]


def relabel(teacher, *batches, first=0):
    return list(teacher.relabel(batches, first))


def test_pseudo_labeled_images_have_the_teachers_labels_and_others_their_own():
    teacher = teacher_of(Scripted([0.9, 0.5, 0.2], [0, 1, 1]))
    ((labeled, pseudo),) = relabel(teacher, batch_of(False, True))
    assert labeled["instances"] == "the labels of the file"
    found = pseudo["instances"]
    assert found.image_size == SIZE
    assert found.gt_boxes.tensor.tolist() == [[0, 0, 5, 9], [1, 0, 6, 9]]  # above 0.4, the start
    assert found.gt_classes.tolist() == [0, 1]
    assert found.gt_certainty.tolist() == [1.0, 0.5]  # above 0.7: certain
    assert found.gt_box_gate.tolist() == [[0, 0], [0, 0]]
    assert found.gt_is_pseudo.tolist() == [True, True]


def test_teacher_sees_the_image_without_the_strong_augmentation():
    teacher = teacher_of(Scripted([0.9], [0]))
    relabel(teacher, batch_of(True))
    ((image,),) = relabel(teacher, batch_of(True))
    assert "weak_image" not in image
    seen, _ = teacher._model.seen
    assert not seen["image"].any()
    plain = batch_of(True)
    del plain[0]["weak_image"]
    relabel(teacher, plain)
    assert (teacher._model.seen[2]["image"] == 9).all()


def test_boxes_of_certain_labels_and_hard_ones_on_request():
    teacher = teacher_of(Scripted([0.9, 0.5], [0, 1]), box_loss=True, soft=False)
    ((pseudo,),) = relabel(teacher, batch_of(True))
    assert pseudo["instances"].gt_box_gate.tolist() == [[1, 1], [0, 0]]
    assert pseudo["instances"].gt_certainty.tolist() == [1.0, 1.0]


def test_a_persons_labels_stay_and_do_not_count():
    teacher, other = (teacher_of(Scripted([0.9], [0])) for _ in range(2))
    corrected, pseudo = batch_of(True, True)
    ((first, second),) = relabel(teacher, [{**corrected, "is_corrected": True}, pseudo])
    assert first["instances"] == "the labels of the file"
    assert len(second["instances"]) == 1
    relabel(other, batch_of(True))
    assert torch.equal(teacher.state_dict()["all"], other.state_dict()["all"])


def test_labels_are_the_files_until_the_teacher_starts():
    teacher = teacher_of(Scripted([0.9], [0]), start=7)
    before, after = relabel(teacher, batch_of(True), batch_of(True), first=6)
    assert before[0]["instances"] == "the labels of the file"
    assert len(after[0]["instances"]) == 1


def test_the_teachers_time_is_told(storage):
    teacher = teacher_of(Scripted([0.9], [0]), start=7)
    relabel(teacher, batch_of(True), first=6)
    assert "teacher/seconds" not in storage.latest()
    relabel(teacher, batch_of(True), first=7)
    assert storage.latest()["teacher/seconds"][0] > 0


def test_teacher_has_the_average_of_the_weights():
    model = Scripted([0.9], [0])
    teacher = teacher_of(model)
    with torch.no_grad():
        model.weight.fill_(0.1)
        teacher._averaging.average["weight"].fill_(0.8)
    ((pseudo,),) = relabel(teacher, batch_of(True))
    assert pseudo["instances"].gt_scores.tolist() == [pytest.approx(0.8)]


def test_the_average_is_in_place_of_the_weights_for_a_while():
    model = Scripted([0.5], [0])
    averaging = AverageWeights(model, 0.9)
    averaging.before_train()
    with torch.no_grad():
        model.weight.fill_(0.1)
    with averaging.in_place_of_weights():
        assert model.weight.item() == 0.5
    assert model.weight.item() == pytest.approx(0.1)
    assert averaging.average["weight"].item() == 0.5


def test_a_batch_without_pseudo_labeled_images_stays():
    teacher = teacher_of(Scripted([0.9], [0]))
    before = teacher.state_dict()
    ((labeled,),) = relabel(teacher, batch_of(False))
    assert labeled["instances"] == "the labels of the file"
    assert torch.equal(teacher.state_dict()["certain"], before["certain"])


def test_an_image_in_which_nothing_is_found_has_no_labels():
    teacher = teacher_of(Scripted([0.01], [0]))
    ((pseudo,),) = relabel(teacher, batch_of(True))
    assert len(pseudo["instances"]) == 0
    assert pseudo["instances"].gt_boxes.tensor.shape == (0, 4)


def test_weights_are_those_of_the_average_whatever_becomes_of_it():
    teacher = teacher_of(Scripted([0.9], [0]))
    average = teacher._averaging.average["weight"]
    relabel(teacher, batch_of(True))
    average.fill_(0.25)
    assert teacher._model.weight.item() == 0.25
    assert not teacher._model.weight.requires_grad
    teacher._averaging.load_state_dict({"average": {"weight": torch.tensor(0.5)}})
    relabel(teacher, batch_of(True))
    assert teacher._model.weight.item() == 0.5


def test_boxes_are_told_of_batches_with_images_to_label_alone(storage):
    teacher = teacher_of(Scripted([0.9, 0.5], [0, 1]))
    relabel(teacher, batch_of(False, False))
    assert "teacher/all_boxes" not in storage.latest()
    relabel(teacher, batch_of(False, True))
    assert storage.latest()["teacher/certain_boxes"][0] == 1
    assert storage.latest()["teacher/all_boxes"][0] == 2


def test_thresholds_let_as_many_boxes_pass_as_there_should_be():
    """Scores drawn evenly from 0 to 1, 4 boxes of each class per image: 1 - goal / 4 is right."""
    goal = torch.tensor([2.0, 0.4], dtype=torch.float64)
    thresholds, generator = CountThresholds(goal, 0.7, 0.05), torch.Generator().manual_seed(0)
    means = []
    for _ in range(1500):
        scores = torch.rand(4 * 4, 2, generator=generator, dtype=torch.float64)
        thresholds.update((scores > thresholds.values).sum(dim=0).double(), torch.tensor(4.0))
        means.append(thresholds.values)
    found = torch.stack(means[500:]).mean(dim=0).tolist()
    assert found == pytest.approx([0.5, 0.9], abs=0.03)


def test_thresholds_stay_between_their_limits():
    goal = torch.tensor([0.0, 5.0], dtype=torch.float64)
    thresholds = CountThresholds(goal, 0.5, 0.05)
    for _ in range(2000):
        thresholds.update(torch.tensor([3.0, 0.0]), torch.tensor(1.0))
    assert thresholds.values.tolist() == [0.95, 0.05]


def test_counts_are_those_of_all_ranks(monkeypatch):
    """The other rank's batch is just like this one's: thresholds move as for one of both."""
    alone, both = (teacher_of(Scripted([0.9, 0.5], [0, 0])) for _ in range(2))
    relabel(alone, batch_of(True, True))
    monkeypatch.setattr(comm, "all_gather", lambda values: [values, values])
    relabel(both, batch_of(True))
    assert torch.equal(alone.state_dict()["certain"], both.state_dict()["certain"])


def test_state_is_what_a_checkpoint_keeps():
    teacher, other = (teacher_of(Scripted([0.9], [0])) for _ in range(2))
    relabel(teacher, batch_of(True))
    other.load_state_dict(teacher.state_dict())
    assert torch.equal(other.state_dict()["all"], teacher.state_dict()["all"])
    assert not torch.equal(other.state_dict()["all"], teacher_of(Scripted([0.9], [0]))._all.values)


# In a run

KEYS = {
    "SSOD__NUM_PHASES": 1,
    "SSOD__SCHEDULE__MAX_ITER": [10, 6],
    "SSOD__PHASE_INIT": "previous",
    "SSOD__AVERAGE__DECAY": 0.9,
    "SSOD__TEACHER__ENABLED": True,
    "SSOD__AUG__STRONG": "pseudo",
    "SSOD__LABELS": "tiers",
    "SSOD__TIERS__ALL": 3.0,
    "SSOD__TIERS__MIN_SCORE": 0.0,
    "MODEL__ROI_HEADS__SCORE_THRESH_TEST": 0.0,
    "MODEL__PROPOSAL_GENERATOR__NAME": "UncertaintyRPN",
    "SOLVER__CHECKPOINT_PERIOD": 3,
}


def test_run_with_a_teacher_goes_on_bit_for_bit_after_an_interruption(data, tmp_path):
    runs.run_here(runs.arguments(data, tmp_path, **KEYS))
    folder = tmp_path / "phase_1"
    whole = torch.load(folder / "model_final.pth", weights_only=True)
    assert any("teacher/all_boxes" in line for line in (folder / "metrics.json").open())
    assert {a["tier"] for a in runs.read(folder / "pseudo_labels.json")["annotations"]} == {
        "certain",
        "uncertain",
    }
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text("model_0000002.pth")
    runs.run_here(runs.arguments(data, tmp_path, "--resume", **KEYS))
    again = torch.load(folder / "model_final.pth", weights_only=True)
    assert all(torch.equal(again["model"][k], v) for k, v in whole["model"].items())
    state = [m["trainer"]["hooks"]["Teacher"] for m in (whole, again)]
    assert torch.equal(state[0]["certain"], state[1]["certain"])
    # A further phase takes the teacher over; what it has labeled stays as it is.
    more = {**KEYS, "SSOD__NUM_PHASES": 2, "SSOD__SCHEDULE__MAX_ITER": [10, 6, 4]}
    runs.run_here(runs.arguments(data, tmp_path, "--resume", **more))
    assert torch.load(folder / "model_final.pth", weights_only=True)["iteration"] == 5
    assert "teacher/all_boxes" in (tmp_path / "phase_2" / "metrics.json").read_text()


def test_thresholds_follow_the_counts_by_the_rule():
    thresholds = CountThresholds(torch.tensor([2.0, 0.05], dtype=torch.float64), 0.7, 0.05)
    thresholds.update(torch.tensor([16.0, 0.0]), torch.tensor(4.0))
    # 0.7 + 0.02 (16 / 4 - 2) / (2 + 0.25), 0.7 + 0.02 (0 - 0.05) / (0.05 + 0.25)
    assert thresholds.values.tolist() == pytest.approx([0.7 + 0.04 / 2.25, 0.7 - 0.001 / 0.3])


def test_a_box_that_is_certain_counts_whatever_the_threshold_of_all_is():
    teacher = teacher_of(Scripted([0.5], [0]))
    teacher._certain.values, teacher._all.values = (
        teacher._certain.values - 0.3,
        (teacher._all.values + 0.2),
    )
    ((pseudo,),) = relabel(teacher, batch_of(True))
    assert pseudo["instances"].gt_certainty.tolist() == [1.0]


def test_teacher_reads_its_keys(tmp_path):
    cfg = runs.bare_config(tmp_path)
    keys = {"TEACHER.START": 7, "TEACHER.BOX_LOSS": True, "TIERS.CERTAIN": 0.25, "TIERS.ALL": 2.0}
    keys |= {"TIERS.UNCERTAIN": "hard", "TIERS.MIN_SCORE": 0.125}
    cfg.merge_from_list([part for k, v in keys.items() for part in (f"SSOD.{k}", v)])
    model = Scripted([0.5], [0])
    teacher = Teacher.from_config(cfg, model, AverageWeights(model, 0.9), np.array([4.0]))
    assert teacher._certain._goal.tolist() == [1.0]
    assert teacher._all._goal.tolist() == [8.0]
    assert (teacher._start, teacher._soft, teacher._box_loss) == (7, False, True)
    assert teacher._certain._low == teacher._all._low == 0.125


def test_each_threshold_follows_its_own_counts():
    teacher = teacher_of(Scripted([0.9, 0.5], [0, 0]))  # one above 0.7, two above 0.4
    relabel(teacher, batch_of(True))
    assert teacher.state_dict()["certain"][0] == pytest.approx(0.7 + 0.02 * (1 - 0.5) / 0.75)
    assert teacher.state_dict()["all"][0] == pytest.approx(0.4 + 0.02 * (2 - 1) / 1.25)


def test_thresholds_of_ranks_stay_alike_whatever_each_of_them_finds(monkeypatch):
    """The other rank found nothing in three images, so that there are few boxes per image."""
    teacher = teacher_of(Scripted([0.9, 0.5], [0, 0]))
    monkeypatch.setattr(
        comm, "all_gather", lambda own: [own, torch.tensor([3.0, 0, 0, 0, 0], dtype=own.dtype)]
    )
    relabel(teacher, batch_of(True))
    certain, of_all = (teacher.state_dict()[name][0].item() for name in ("certain", "all"))
    assert certain == pytest.approx(0.7 + 0.02 * (1 / 4 - 0.5) / 0.75)
    assert of_all == pytest.approx(0.4 + 0.02 * (2 / 4 - 1) / 1.25)


def test_boxes_at_a_threshold_are_below_it():
    teacher = teacher_of(Scripted([0.75, 0.5], [0, 1]))
    teacher._certain.values, teacher._all.values = torch.full((2, 2), 0.75).double()
    teacher._all.values = teacher._all.values * 2 / 3  # 0.5
    ((pseudo,),) = relabel(teacher, batch_of(True))
    assert pseudo["instances"].gt_certainty.tolist() == [0.75]
