"""The one exception that a user's input can cause."""


class ConfigError(ValueError):
    """A config key, data set or file that cannot be used.

    The message is one line that names the key or file, what was found there, and what to do; the
    command line prints it and stops before training.
    """
