"""Messages that one can read."""

from d2_ssod.errors import ConfigError


def test_long_words_and_lines_are_shortened_in_their_middle():
    message = f"mine.json: the number {'9' * 100_000} is none; correct it"
    line = str(ConfigError(message))
    assert len(line) < 400
    assert line.startswith("mine.json: the number 999")
    assert line.endswith("999 is none; correct it")
    assert "..." in line
    line = str(ConfigError("mine.json: " + "word " * 10_000 + "; correct it"))
    assert len(line) == 1500
    assert line.endswith("; correct it")


def test_others_stay_as_they_are():
    message = "mine.json: " + "a/" * 140 + "b.png is no picture; correct it"
    assert str(ConfigError(message)) == message


def test_what_breaks_a_line_or_a_terminal_is_escaped():
    line = str(ConfigError("a\nb.json: width is \x1b[31m\u2028\udc80, é"))
    assert line == r"a\nb.json: width is \x1b[31m\u2028\udc80, é"
