import logging

import pytest

from d2_ssod.data import findings as findings_module
from d2_ssod.data.findings import Findings, raise_first
from d2_ssod.errors import ConfigError


def test_alike_findings_are_one_with_all_cases():
    findings = Findings()
    for number in range(50):
        findings.error(
            "a.json", "boxes without area", f"annotation {number} is empty", "correct it"
        )
    findings.error("b.json", "boxes without area", "annotation 7 is empty", "correct it")
    findings.warning("a.json", "odd boxes", "annotation 8 is odd", "look at it")
    first, second, third = findings
    assert (first.count, len(first.cases)) == (50, 50)
    assert str(first) == (
        "a.json: annotation 0 is empty (and 49 more: boxes without area); correct it"
    )
    assert str(second) == "b.json: annotation 7 is empty; correct it"
    assert (third.level, len(findings), findings.has_errors) == ("warning", 3, True)


def test_cases_beyond_a_limit_are_counted(monkeypatch):
    monkeypatch.setattr(findings_module, "_KEPT", 3)
    findings, joined = Findings(), Findings()
    for number in range(5):
        findings.warning("KEY", "odd", f"{number} is odd", "look")
    for _ in range(2):
        joined.extend(findings)
    (found,) = joined
    assert (found.cases, found.count) == (("0 is odd", "1 is odd", "2 is odd"), 10)


def test_joined_findings_are_counted_together():
    one, other = Findings(), Findings()
    for findings in (one, other):
        findings.warning("KEY", "odd", "a is odd", "look")
    one.extend(other)
    assert [finding.count for finding in one] == [2]
    assert not one.has_errors


def test_a_line_is_one_line_whatever_the_names_are():
    findings = Findings()
    findings.error("a\nb.json", "odd", "x\r\ny is odd", "look")
    assert str(next(iter(findings))) == "a b.json: x y is odd; look"


def test_raise_first_warns_and_stops_at_the_first_error(caplog):
    findings = Findings()
    findings.warning("KEY", "odd", "this one is odd", "look")
    findings.error("KEY", "wrong", "this is wrong", "correct it")
    findings.error("KEY", "worse", "this is worse", "correct it")
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ConfigError, match=r"^KEY: this is wrong; correct it \(1 more kinds"),
    ):
        raise_first(findings)
    assert "KEY: this one is odd; look" in caplog.text


def test_raise_first_says_a_warning_once(caplog):
    findings = Findings()
    findings.warning("KEY", "odd", "this is odd, as said once", "look")
    with caplog.at_level(logging.WARNING):
        raise_first(findings)
        raise_first(findings)
    assert caplog.text.count("as said once") == 1
