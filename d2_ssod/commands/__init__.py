"""What ``python -m d2_ssod`` can do, each in a module, or folder, of its own.

check.py     everything that is wrong or odd about the data of a config
fuse.py      how good the models of several runs are together
init/        from data to a config
predict.py   from pictures to boxes
report.py    what a run did, as a page
split.py     a COCO file, into labeled and unlabeled images
train.py     train_net.py

arguments.py reads values that several take; trained_models.py says which models of runs predict and
fuse take, targets.py what they may overwrite; kept_predictions.py keeps what predict has
found.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from d2_ssod.engine.processes.group import USER_ERROR, flush_streams, is_read
from d2_ssod.errors import ConfigError, described

from . import check, fuse, init, predict, report, split, train

_COMMANDS = {
    "check": check,
    "fuse": fuse,
    "init": init,
    "predict": predict,
    "report": report,
    "split": split,
    "train": train,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name, and exit with its code.

    A user's error ends it with one line and exit code 2.

    Args:
        arguments: of the command line, by default those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m d2_ssod")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in _COMMANDS.items():
        description = module.__doc__ or ""
        own = subparsers.add_parser(
            name,
            help=description.splitlines()[0],
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # Detectron2's own has --help already.
            **({"parents": module.PARENTS, "add_help": False} if module is train else {}),
        )
        module.add_arguments(own)
    given = parser.parse_args(arguments)
    try:
        sys.exit(_COMMANDS[given.command].run(given))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except BrokenPipeError:
        if all(map(is_read, (sys.stdout, sys.stderr))):  # it is another pipe that is broken
            raise
        flush_streams()
        sys.exit(USER_ERROR)
    except OSError as error:
        if error.strerror is None:  # not of the system's
            raise
        remedy = "correct the path, its rights or free space on the disk"
        print(f"error: {described(error)}; {remedy}", file=sys.stderr)
        sys.exit(USER_ERROR)
