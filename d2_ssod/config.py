"""Every config key that this project adds to Detectron2's, with its default, unit and effect."""

from __future__ import annotations

from detectron2.config import CfgNode

# Values of the keys that choose one of a few.
PHASE_INITS = ("pretrained", "supervised", "previous")
SAMPLINGS = ("union", "balanced")
VARIANTS = ("paper", "released")
APPLY_TO = ("pseudo", "all")
OPTIMIZERS = ("SGD", "AdamW")


def add_ssod_config(cfg: CfgNode) -> None:
    """Add ``DATASETS.UNLABELED`` and the ``SSOD`` section, in place, to a Detectron2 config."""
    # Images without annotations, as registered names (see SSOD.REGISTER for your own).
    cfg.DATASETS.UNLABELED = ()

    cfg.SSOD = CfgNode()

    # --- Data -------------------------------------------------------------------------------------
    # Your own data: a list of {NAME: ..., IMAGES: folder} (unlabeled images, found recursively) and
    # {NAME: ..., JSON: coco_instances.json, IMAGES: folder}. The names go into DATASETS.*.
    cfg.SSOD.REGISTER = []
    # Colour jitter: brightness, contrast and saturation are each scaled by 1 +- COLOR. 0: off.
    cfg.SSOD.AUG = CfgNode()
    cfg.SSOD.AUG.COLOR = 0.0
    # Zoom: a window of SCALE[0]..SCALE[1] times the image's size is cut out (> 1: black border).
    cfg.SSOD.AUG.SCALE = (1.0, 1.0)
    # The window's centre moves by up to SHIFT times the image's size, in each direction.
    cfg.SSOD.AUG.SHIFT = 0.0

    # --- Phases (Algorithm 1) ---------------------------------------------------------------------
    # N: semi-supervised phases after the supervised phase 0. 1 is the one-phase baseline.
    cfg.SSOD.NUM_PHASES = 2
    # What each phase starts from: MODEL.WEIGHTS ("pretrained"), the model of phase 0
    # ("supervised") or of the phase before ("previous").
    cfg.SSOD.PHASE_INIT = "pretrained"
    # Fraction of the non-empty unlabeled images used in phases 1..N. (): i/N.
    cfg.SSOD.EASY_FRACTIONS = ()
    # "union": images are drawn uniformly from labeled + pseudo-labeled ones.
    # "balanced": every other image of a batch is labeled, every other pseudo-labeled; on average
    # only where batches are sorted by shape (DATALOADER.ASPECT_RATIO_GROUPING).
    cfg.SSOD.SAMPLING = "union"
    # How often the labeled images stand in the union (phases 1..N).
    cfg.SSOD.LABELED_REPEAT = 1
    # "SGD" (as in Detectron2) or "AdamW"; both read SOLVER.BASE_LR and SOLVER.WEIGHT_DECAY*.
    cfg.SSOD.OPTIMIZER = "SGD"
    # What differs between phases: one value for each of the phases 0..N. (): the same in every
    # phase, that is SOLVER.MAX_ITER, SOLVER.STEPS, SOLVER.BASE_LR, SSOD.LABELED_REPEAT.
    cfg.SSOD.SCHEDULE = CfgNode()
    cfg.SSOD.SCHEDULE.MAX_ITER = ()  # iterations
    cfg.SSOD.SCHEDULE.STEPS = ()  # iterations, counted from the phase's start
    cfg.SSOD.SCHEDULE.BASE_LR = ()
    cfg.SSOD.SCHEDULE.LABELED_REPEAT = ()  # its first value, for phase 0, has no effect

    # --- Pseudo labels ----------------------------------------------------------------------------
    # Raw detections come from the model at MODEL.ROI_HEADS.SCORE_THRESH_TEST, .NMS_THRESH_TEST and
    # TEST.DETECTIONS_PER_IMAGE; thresholds are matched to the labeled images' objects per image.
    cfg.SSOD.PSEUDO_LABEL = CfgNode()
    # Keep only this fraction of each class's pseudo-boxes, the best-scored ones. 1: all.
    cfg.SSOD.PSEUDO_LABEL.KEEP_FRACTION = 1.0
    # Intersection of the models: boxes of two models agree if they overlap by more than IOU_THRESH;
    # NMS_THRESH then removes duplicates.
    cfg.SSOD.CONSENSUS = CfgNode()
    cfg.SSOD.CONSENSUS.IOU_THRESH = 0.5
    cfg.SSOD.CONSENSUS.NMS_THRESH = 0.3
    # How many models must see a box. 0: all of them (the models are folded from the left).
    cfg.SSOD.CONSENSUS.MIN_VOTES = 0
    # Data Distillation's multi-transform inference for the pseudo-labels: the scales and the flip
    # of TEST.AUG.MIN_SIZES, .MAX_SIZE and .FLIP, merged.
    cfg.SSOD.TTA = CfgNode()
    cfg.SSOD.TTA.ENABLED = False

    # --- RoI re-weighting (Eq. 2-5) ---------------------------------------------------------------
    cfg.SSOD.ROI_WEIGHTING = CfgNode()
    # "uncertainty" | "soft_sampling" | "constant" | "none"
    cfg.SSOD.ROI_WEIGHTING.NAME = "uncertainty"
    # Eq. 4-5 as in the "paper" or as in the authors' "released" code.
    cfg.SSOD.ROI_WEIGHTING.VARIANT = "paper"
    # Which images' RoIs are re-weighted: "pseudo"-labeled ones or "all", which includes phase 0.
    cfg.SSOD.ROI_WEIGHTING.APPLY_TO = "pseudo"
    # g(x) = a + (1 - a) exp(-b exp(-c x)): floor, displacement and growth rates of the two factors.
    cfg.SSOD.ROI_WEIGHTING.A = 0.25
    cfg.SSOD.ROI_WEIGHTING.B = 50.0
    cfg.SSOD.ROI_WEIGHTING.C_IOU = 15.0
    cfg.SSOD.ROI_WEIGHTING.C_SIM = 10.0
    # c of "soft_sampling", which is the first factor alone.
    cfg.SSOD.ROI_WEIGHTING.C_SOFT_SAMPLING = 20.0
    # The weight that "constant" gives to every background RoI.
    cfg.SSOD.ROI_WEIGHTING.CONSTANT = 0.5

    # --- Embedding and similarity loss (Eq. 6-7) --------------------------------------------------
    cfg.SSOD.SIMILARITY = CfgNode()
    # Output size of the embedding's linear layer. 0: that of the box head.
    cfg.SSOD.SIMILARITY.EMBED_DIM = 0
    # Two RoIs are alike if one lies inside the other by more than this IoF.
    cfg.SSOD.SIMILARITY.IOF_THRESH = 0.7
    cfg.SSOD.SIMILARITY.LOSS_WEIGHT = 1.0
    # Also count two foreground RoIs of one class as alike (not in the paper).
    cfg.SSOD.SIMILARITY.SAME_CLASS = False

    # --- Ensemble (weighted boxes fusion) ---------------------------------------------------------
    cfg.SSOD.ENSEMBLE = CfgNode()
    cfg.SSOD.ENSEMBLE.IOU_THRESH = 0.6
    cfg.SSOD.ENSEMBLE.SKIP_BOX_THRESH = 1e-4
    # Weights of the models of phases 0..N. (): equal.
    cfg.SSOD.ENSEMBLE.WEIGHTS = ()

    # --- Inference --------------------------------------------------------------------------------
    # Images per process and step when predicting and evaluating. More than 1 is faster on small
    # images; images of different sizes are padded to a common one.
    cfg.SSOD.INFERENCE_BATCH_SIZE = 1
