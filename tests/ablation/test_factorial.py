import pytest

from ablation.real.factorial import main_effects

COMBINATIONS = [frozenset(letters) for letters in ("", "a", "b", "c", "ab", "ac", "bc", "abc")]


def test_what_adds_up_is_found_without_error():
    worth = {"a": 2.0, "b": -1.0, "c": 0.0}
    found = main_effects({on: 50 + sum(worth[f] for f in on) for on in COMBINATIONS})
    for factor, (effect, error) in found.items():
        assert effect == pytest.approx(worth[factor])
        assert error == pytest.approx(0, abs=1e-12)


def test_what_two_do_together_counts_as_error():
    found = main_effects({on: 4.0 * ({"a", "b"} <= on) for on in COMBINATIONS})
    # Each adds 4 in half of the combinations with it; together 2, of four such effects.
    assert found["a"] == pytest.approx((2.0, 1.0))
    assert found["c"] == pytest.approx((0.0, 1.0))


def test_a_missing_combination_is_an_error():
    with pytest.raises(ValueError, match="7 combinations of 3 factors"):
        main_effects(dict.fromkeys(COMBINATIONS[:7], 1.0))
