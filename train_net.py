"""Train and evaluate: ``python train_net.py --config-file configs/mine.yaml --num-gpus 8``.

Takes Detectron2's own flags (``--resume``, ``--eval-only``, ``--num-machines``, ... and
``KEY VALUE`` overrides at the end) and also runs under ``torchrun``.
"""

from d2_ssod.engine import (
    MultiPhaseTrainer,
    default_argument_parser,
    evaluate_run,
    launch,
    load_run_data,
    setup,
)


def main(args) -> None:
    """What every process of the run does."""
    cfg = setup(args)
    if not args.eval_only:
        trainer = MultiPhaseTrainer(cfg, load_run_data(cfg))
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
    evaluate_run(cfg)


if __name__ == "__main__":
    launch(main, default_argument_parser().parse_args())
