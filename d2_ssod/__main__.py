"""``python -m d2_ssod COMMAND``: what can be done besides training; ``--help`` lists it."""

import d2_ssod.quiet  # noqa: F401  before what it silences

from d2_ssod.commands import main

if __name__ == "__main__":
    main()
