"""``python -m d2_ssod COMMAND``: ``--help`` lists what it can do."""

import d2_ssod.quiet  # noqa: F401  before what it silences

from d2_ssod.commands import main

if __name__ == "__main__":
    main()
