"""Damage to files, drawn by hypothesis."""

from hypothesis import strategies as st

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**30),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
)


@st.composite
def damages(draw):
    """A way to damage parsed JSON: some places get another value, or are lost."""
    steps = draw(
        st.lists(st.tuples(st.integers(0, 10**6), ODD, st.booleans()), min_size=1, max_size=3)
    )

    def damage(content):
        for number, value, is_lost in steps:
            places = list(_places(content))
            if not places:
                return value
            holder, key = places[number % len(places)]
            if is_lost:
                del holder[key]
            else:
                holder[key] = value
        return content

    return damage


def _places(content):
    """Every value within lists and mappings, as (holder, key)."""
    items = enumerate(content) if isinstance(content, list) else content.items()
    for key, value in list(items):
        yield content, key
        if isinstance(value, (list, dict)):
            yield from _places(value)


@st.composite
def text_damages(draw):
    """A way to damage a text: some of it is cut out, or replaced by what is odd in such files."""
    steps = draw(
        st.lists(
            st.tuples(
                st.floats(0, 1),
                st.integers(0, 40),
                st.one_of(
                    st.text(max_size=6),
                    st.sampled_from(
                        [
                            "nan",
                            "1e999",
                            "-1",
                            "<",
                            "&",
                            "\0",
                            "\n",
                            "\udcff",
                            "9" * 5000,
                            "../",
                            "{",
                        ]
                    ),
                ),
            ),
            min_size=1,
            max_size=3,
        )
    )

    def damage(text):
        for place, length, value in steps:
            start = int(place * len(text))
            text = text[:start] + value + text[start + length :]
        return text

    return damage
