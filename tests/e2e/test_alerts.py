"""The alerts, by promtool: each fires when it should and is silent when it should be."""

import pathlib
import re

import yaml
from contract import ROOT
from prometheus import RULES, promtool

CASES = ROOT / "tests/rules/hanmo_test.yaml"


def alerts():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_rules_hold():
    promtool("check", "rules", RULES)
    promtool("test", "rules", CASES)


def test_every_alert_is_tested_firing_and_silent():
    firing, silent = set(), set()
    for case in yaml.safe_load(CASES.read_text())["tests"]:
        for check in case["alert_rule_test"]:
            severities = {alert["exp_labels"]["severity"] for alert in check["exp_alerts"]}
            firing |= {(check["alertname"], severity) for severity in severities}
            if not severities:
                silent.add(check["alertname"])
    assert firing == {(rule["alert"], rule["labels"]["severity"]) for rule in alerts()}
    assert silent == {rule["alert"] for rule in alerts()}


def test_every_alert_has_a_runbook():
    for rule in alerts():
        file, anchor = rule["annotations"]["runbook_url"].split("#")
        headings = re.findall(r"^#+ (.*)$", (ROOT / pathlib.Path(file)).read_text(), re.MULTILINE)
        assert anchor == rule["alert"].lower()
        assert rule["alert"] in headings
