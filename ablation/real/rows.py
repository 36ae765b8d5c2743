"""The rows of the tables of real pictures: config keys, and what they build on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import compress, product
from pathlib import Path

from ablation.rows import RESULTS
from d2_ssod.artifacts import RunFolder
from d2_ssod.json_files import read_json

CONFIG = "Base-SSOD-Small.yaml"  # below configs/
BATCH = 8
SPLITS = ("val", "test")  # one run is judged on both; tune on the first


@dataclass(frozen=True)
class Row:
    """A way to train.

    Attributes:
        title: of the row of the table.
        phases: N; with 0 the labels alone are learned.
        overrides: config keys.
        is_short: whether it ends where the phases of others begin.
        oracle: what of the labels of "none" is put right first, one of ``oracles.ORACLES``.
        fuses: the row whose last models of several seeds are fused, instead of a training.
        models: how many of these.
        fuses_all: whether the models of all their phases are fused.
        shares: of the phases after phase 0 in the iterations; (): equal ones.
        voters: how many other models of phase 0, trained for it, label along.
        labeled_share: of the images of a batch, about, on average; 0: as CONFIG has it, half.
    """

    title: str
    phases: int = 0
    overrides: dict[str, object] = field(default_factory=dict)
    is_short: bool = False
    oracle: str = ""
    fuses: str = ""
    models: int = 1
    fuses_all: bool = False
    shares: tuple[int, ...] = ()
    voters: int = 0
    labeled_share: float = 0.0


_FROM_PHASE_0 = {"SSOD.PHASE_INIT": "previous"}
_STRONG = {**_FROM_PHASE_0, "SSOD.AUG.STRONG": "pseudo"}
_SOFT = {**_STRONG, "MODEL.PROPOSAL_GENERATOR.NAME": "UncertaintyRPN"}
_TEACHER = {**_SOFT, "SSOD.TEACHER.ENABLED": True}
_NO_RAMP = {"SSOD.AVERAGE.RAMP": False}
_SHIPPED = {**_STRONG, **_NO_RAMP}  # as Base-Self-Training.yaml has it
_ALL_EDGES = {"SSOD.TIERS.MAX_SPREAD": 1.0}
# Fused boxes of all models so far, each learned as an object.
_FUSED = {"SSOD.LABELS": "tiers", "SSOD.TIERS.CERTAIN": 1.0, **_ALL_EDGES}
_ALL_IMAGES = {"SSOD.EASY_FRACTIONS": [1.0, 1.0]}  # in both of two phases
_ROUNDS = {**_SHIPPED, **_FUSED, **_ALL_IMAGES}
# So much did the method's weights amount to on the digits: docs/ablation.md.
_MEAN_WEIGHT = 0.345

# Parts of two-tier labels by their key, its value without and with them. All combinations are
# rows, of two phases, so that there are two models.
_PARTS = {
    "soft": ("SSOD.TIERS.UNCERTAIN", "hard", "soft"),
    "gate": ("SSOD.TIERS.MAX_SPREAD", 1.0, 0.05),
    "average": ("SSOD.AVERAGE.DECAY", 0.0, 0.999),
}
FACTORS = tuple(_PARTS)
CHOICES = [
    frozenset(compress(FACTORS, chosen)) for chosen in product((True, False), repeat=len(FACTORS))
]


def cell(on: frozenset[str]) -> str:
    """Name the row that has these factors."""
    return "cell_" + "_".join(factor if factor in on else f"no_{factor}" for factor in FACTORS)


def _cell(on: frozenset[str]) -> Row:
    keys = {key: values[part in on] for part, (key, *values) in _PARTS.items()}
    tiers = {**_SOFT, **_NO_RAMP, **_ALL_IMAGES, "SSOD.LABELS": "tiers"}
    parts = ", ".join(f"{'' if factor in on else 'no '}{factor}" for factor in FACTORS)
    return Row(f"two phases, labels of two tiers: {parts}", 2, {**tiers, **keys})


# No row has the similarity loss, and one that does not say so no re-weighting. One phase goes on
# from the model of phase 0; its strong augmentation is that of the pseudo-labeled images.
ROWS = {
    "fs": Row("FS: phase 0", is_short=True),
    "fs_x2": Row("FS x 2, fused", fuses="fs", models=2),
    "fs_x3": Row("FS x 3, fused", fuses="fs", models=3),
    "fs_plus": Row("FS+: labeled images only, as long"),
    "fs_plus_strong": Row("FS+, strong augmentation", overrides={"SSOD.AUG.STRONG": "all"}),
    "fs_plus_x2": Row("FS+ x 2, fused", fuses="fs_plus", models=2),
    "fs_plus_x3": Row("FS+ x 3, fused", fuses="fs_plus", models=3),
    "fs_plus_x4": Row("FS+ x 4, fused", fuses="fs_plus", models=4),
    "two_phase": Row("two phases, consensus, mean score (Eq. 1)", 2),
    "previous_held": Row("one phase, no ramp of the average", 1, {**_FROM_PHASE_0, **_NO_RAMP}),
    "none": Row("one phase, strong augmentation", 1, _STRONG),
    "tiers": Row(
        "one phase, strong augmentation, labels of two tiers",
        1,
        {**_SOFT, "SSOD.LABELS": "tiers"},
    ),
    "teacher": Row("one phase, strong augmentation, mean teacher", 1, _TEACHER),
    "teacher_held": Row(
        "one phase, strong augmentation, mean teacher, no ramp of the average",
        1,
        {**_TEACHER, **_NO_RAMP},
    ),
    "none_held": Row(
        "one phase, strong augmentation, no ramp of the average",
        1,
        _SHIPPED,
    ),
    "none_held_x2": Row(
        "one phase, strong augmentation, no ramp x 2, fused", fuses="none_held", models=2
    ),
    "none_held_all_x2": Row(
        "one phase, strong augmentation, no ramp x 2, phases 0 and 1 fused",
        fuses="none_held",
        models=2,
        fuses_all=True,
    ),
    "constant_held": Row(
        f"one phase, strong augmentation, no ramp, background weighted by {_MEAN_WEIGHT}",
        1,
        {
            **_SHIPPED,
            "SSOD.ROI_WEIGHTING.NAME": "constant",
            "SSOD.ROI_WEIGHTING.CONSTANT": _MEAN_WEIGHT,
        },
    ),
    "paper_held": Row(
        "one phase, strong augmentation, no ramp, uncertainty weights (Eq. 2-5)",
        1,
        {**_SHIPPED, "SSOD.ROI_WEIGHTING.NAME": "uncertainty"},
    ),
    "tiers_held": Row(
        "one phase, strong augmentation, labels of two tiers and edges, no ramp of the average",
        1,
        {**_SOFT, **_NO_RAMP, "SSOD.LABELS": "tiers", **_ALL_EDGES},
    ),
    "no_edges_held": Row(
        "one phase, strong augmentation, labels without their edges, no ramp of the average",
        1,
        {**_SOFT, **_NO_RAMP, **_FUSED, "SSOD.TIERS.MAX_SPREAD": 0.0},
    ),
    "voters_held": Row(
        "one phase, strong augmentation, fused labels of three phases 0, no ramp of the average",
        1,
        {**_SHIPPED, **_FUSED},
        voters=2,
    ),
    "mostly_labeled_held": Row(
        "one phase, strong augmentation, three of four images labeled, no ramp of the average",
        1,
        _SHIPPED,
        labeled_share=0.75,
    ),
    "rounds_held": Row(
        "two phases on all images, strong augmentation, fused labels, no ramp of the average",
        2,
        _ROUNDS,
    ),
    "rounds_agreed": Row(
        "two such phases, edges of what both models see",
        2,
        {**_ROUNDS, "SSOD.TIERS.MAX_SPREAD": 0.99},
    ),
    "rounds_longer": Row(
        "two such phases, the second phase twice as long as the first", 2, _ROUNDS, shares=(1, 2)
    ),
    "rounds_views": Row(
        "two such phases, labels of three sizes (and flips) of each image",
        2,
        {**_ROUNDS, "SSOD.TTA.ENABLED": True},
    ),
    **{cell(on): _cell(on) for on in CHOICES},
    "oracle_deleted": Row(
        "one phase, strong augmentation, wrong boxes deleted", 1, _STRONG, oracle="wrong_deleted"
    ),
    "oracle_edges": Row(
        "one phase, strong augmentation, true edges of right boxes",
        1,
        _STRONG,
        oracle="edges_true",
    ),
    "oracle_added": Row(
        "one phase, strong augmentation, missed boxes added", 1, _STRONG, oracle="missed_added"
    ),
    "oracle_true": Row("one phase, strong augmentation, the true boxes", 1, _STRONG, oracle="true"),
}


@dataclass(frozen=True)
class RealRun:
    """One training on a folder of real pictures, or the fusion of several.

    Attributes:
        data: the folder.
        row: one of ``ROWS``.
        lengths: iterations of phase 0, and of all others together.
        rates: learning rates of phase 0 and of the others.
        seed: of the run.
        split: what it is judged on, "val" or "test".
        mates: seeds of the other models that are fused.
    """

    data: Path
    row: str
    lengths: tuple[int, int]
    rates: tuple[float, float]
    seed: int
    split: str = "val"
    mates: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What tells it from the others, as a path; judged on whatever split."""
        return f"{self._group()}/seed_{self.seed}"

    @property
    def result(self) -> Path:
        """Where its result lies once it is finished."""
        return RESULTS / f"{self._group()}_{self.split}" / f"seed_{self.seed}.json"

    def _group(self) -> str:
        length = "_".join(map(str, self.lengths))
        rate = "_".join(f"{rate:g}" for rate in self.rates)
        return f"{self.data.name}/{self.row}_{length}_{rate}"

    @property
    def needs(self) -> list[RealRun]:
        """Runs whose models must be there before."""
        row = ROWS[self.row]
        if row.fuses:
            seeds = (self.seed, *self.mates)
            return [replace(self, row=row.fuses, seed=seed, mates=()) for seed in seeds]
        phase_0 = [replace(self, row="fs")] if row.phases else []  # which rows of a seed share
        return phase_0 + ([replace(self, row="none")] if row.oracle else [])

    @property
    def phase_lengths(self) -> list[int]:
        """Iterations of each phase."""
        row, (first, others) = ROWS[self.row], self.lengths
        if row.is_short:
            return [first]
        if not row.phases:
            return [first + others]
        shares = row.shares or (1,) * row.phases
        lengths = [others * share // sum(shares) for share in shares]
        return [first, *lengths[:-1], others - sum(lengths[:-1])]

    @property
    def image_passes(self) -> int:
        """How many images are trained on, those of phase 0 and of each other model, too."""
        if ROWS[self.row].fuses:
            return sum(need.image_passes for need in self.needs)
        return (sum(self.phase_lengths) + ROWS[self.row].voters * self.lengths[0]) * BATCH

    @property
    def fused_phases(self) -> list[int]:
        """Whose models of each run that it needs are fused."""
        row = ROWS[self.row]
        last = ROWS[row.fuses].phases
        return list(range(0 if row.fuses_all else last, last + 1))

    def overrides(self, output: Path) -> dict[str, object]:
        """Config keys of the run, with ``output`` the folder of all."""
        row, start = ROWS[self.row], {}
        if row.phases:
            start = {"SSOD.START.PHASE_0": str(self.needs[0].model(output).resolve())}
        if row.oracle:
            start["SSOD.PSEUDO_LABEL.FROM"] = str(self.labels(output).resolve())
        if row.voters:
            voters = [str(folder.phase(0).predictions) for folder in self.voters(output)]
            start["SSOD.CONSENSUS.EXTRA_SOURCES"] = voters
        return {
            "SEED": self.seed,
            "MODEL.ROI_HEADS.NUM_CLASSES": len(read_json(self.data / "labeled.json")["categories"]),
            "SOLVER.IMS_PER_BATCH": BATCH,
            "DATASETS.TRAIN": ["real_labeled"],
            "DATASETS.UNLABELED": ["real_unlabeled"],
            "DATASETS.TEST": [f"real_{split}" for split in SPLITS],
            "SSOD.REGISTER": _register(self.data),
            "SSOD.DIAGNOSTICS.UNLABELED_TRUTH": "real_truth" if row.phases else "",
            "SSOD.ROI_WEIGHTING.NAME": "none",
            "SSOD.SIMILARITY.LOSS_WEIGHT": 0.0,
            "SSOD.AVERAGE.DECAY": 0.999,
            "SSOD.NUM_PHASES": row.phases,
            "SSOD.SCHEDULE.MAX_ITER": self.phase_lengths,
            "SSOD.SCHEDULE.BASE_LR": [self.rates[0]] + [self.rates[1]] * row.phases,
            **start,
            **(self._sampling() if row.labeled_share else {}),
            **row.overrides,
            **self._settings(),
        }

    def model(self, output: Path) -> Path:
        """The model of its phase 0."""
        return output / self.name / "phase_0" / "model_final.pth"

    def labels(self, output: Path) -> Path:
        """The labels of phase 1 as its oracle would have them."""
        return output / self.name / "put_right.json"

    def voters(self, output: Path) -> list[RunFolder]:
        """Of the models that label along."""
        folder = (output / self.name).resolve()
        return [RunFolder(folder / f"voter_{n}") for n in range(1, ROWS[self.row].voters + 1)]

    def _sampling(self) -> dict[str, object]:
        """Config keys by which the row's share of images is labeled."""
        share = ROWS[self.row].labeled_share
        labeled, unlabeled = (
            len(read_json(self.data / file)["images"])
            for file in ("labeled.json", "unlabeled_truth.json")
        )
        repeat = max(1, round(share / (1 - share) * unlabeled / labeled))
        return {"SSOD.SAMPLING": "union", "SSOD.LABELED_REPEAT": repeat}

    def _settings(self) -> dict[str, object]:
        """Config keys that the pictures need."""
        file = self.data / "settings.json"
        return read_json(file) if file.exists() else {}


def _register(data: Path) -> list[dict[str, str]]:
    """Entries of ``SSOD.REGISTER`` for the folder."""

    def entry(name: str, annotations: str, pictures: str) -> dict[str, str]:
        file = {"JSON": str(data / f"{annotations}.json")} if annotations else {}
        return {"NAME": f"real_{name}", **file, "IMAGES": str(data / pictures)}

    return [
        *(entry(split, split, split) for split in ("labeled", *SPLITS)),
        entry("unlabeled", "", "unlabeled"),
        entry("truth", "unlabeled_truth", "unlabeled"),
    ]
