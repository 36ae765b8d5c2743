"""Train and evaluate: ``python train_net.py --config-file configs/mine.yaml --num-gpus 8``.

Takes Detectron2's own flags (``--resume``, ``--eval-only``, ``--num-machines``, ... and
``KEY VALUE`` overrides at the end) and also runs under ``torchrun``.
"""

import d2_ssod.quiet  # noqa: F401  before what it silences

from d2_ssod.engine import default_argument_parser, launch, load_run_data, setup, train_phases
from d2_ssod.evaluation import evaluate_run
from d2_ssod.report import report_run


def main(args) -> None:
    """What every process of the run does."""
    cfg = setup(args)
    if not args.eval_only:
        train_phases(cfg, load_run_data(cfg))
    evaluate_run(cfg)
    report_run(cfg)


if __name__ == "__main__":
    launch(main, default_argument_parser().parse_args())
