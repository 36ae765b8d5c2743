"""Command line: write the data set, and a contact sheet of it if asked."""

from __future__ import annotations

import argparse
import logging
import sys

from d2_ssod.errors import ConfigError

from .preview import save_preview
from .writer import generate

logger = logging.getLogger("d2_ssod.demo.digit_scenes")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m d2_ssod.demo.digit_scenes", description="Write the digit_scenes data set."
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to be")
    parser.add_argument("--seed", type=int, default=0, help="chooses the pictures (default 0)")
    parser.add_argument("--preview", metavar="FILE.png", help="also save a contact sheet")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        folder = generate(options.output, seed=options.seed)
    except ConfigError as error:
        logger.error(error)
        return 1
    logger.info("The data set is in %s", folder)
    if options.preview:
        save_preview(folder, options.preview)
        logger.info("The contact sheet is %s", options.preview)
    return 0


if __name__ == "__main__":
    sys.exit(main())
