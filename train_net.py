"""Train and evaluate: ``python train_net.py --config-file configs/mine.yaml --num-gpus 8``.

Takes Detectron2's own flags (``--resume``, ``--eval-only``, ``--num-machines``, ... and
``KEY VALUE`` overrides at the end) and also runs under ``torchrun``.
"""

import d2_ssod.quiet  # noqa: F401  before what it silences

from d2_ssod.commands.train import main
from d2_ssod.engine import default_argument_parser, launch

if __name__ == "__main__":
    launch(main, default_argument_parser().parse_args())
