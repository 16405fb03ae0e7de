"""Rules by promtool: each alert fires when it should, not a moment before, and not when all is well."""

import subprocess

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from labkit.core.errors import BadInput
from labkit.scale import observe, rules
from labkit.servers import prometheus

LIMITS = rules.Limits(window_s=60, hold_s=30, replicas=2)
SERVER = 'haproxy_server_status{proxy="replicas",state="UP",server="r%d"}'
DOOR = 'haproxy_frontend_http_responses_total{proxy="door",code="%s"}'
FIRST = 'gen_ai_server_time_to_first_token_seconds_bucket{le="%s"}'
# what is seen every 10 s for 3 minutes when all is well
WELL = {
    SERVER % 0: "1x18", SERVER % 1: "1x18",
    DOOR % "2xx": "0+100x18", DOOR % "5xx": "0+0x18",
    FIRST % "1.0": "0+10x18", FIRST % "2.5": "0+10x18", FIRST % "+Inf": "0+10x18",
    'llamacpp:requests_deferred{instance="a"}': "0x18", 'llamacpp:requests_deferred{instance="b"}': "0x18",
    'slm_quality_score{model="m",task="t"}': "0.8x18", 'slm_drift_psi{model="m"}': "0.1x18",
}  # fmt: skip
# alert -> what is changed, from the beginning; the labels that its query keeps; the value that its summary says
WRONG = {
    "NoReplica": ({SERVER % 0: "0x18", SERVER % 1: "0x18"}, {}, "0"),
    "ReplicaDown": ({SERVER % 1: "0x18"}, {}, "1"),
    "Errors": ({DOOR % "5xx": "0+2x18"}, {}, "0.0196"),
    "SlowFirstToken": ({FIRST % "1.0": "0+9x18", FIRST % "2.5": "0+9.3x18"}, {}, "2.5"),
    "RequestsWait": ({'llamacpp:requests_deferred{instance="b"}': "3x18"}, {}, "3"),
    "QualityLow": ({'slm_quality_score{model="m",task="t"}': "0.6x18"}, {"model": "m", "task": "t"}, "0.6"),
    "PromptsDrift": ({'slm_drift_psi{model="m"}': "0.3x18"}, {"model": "m"}, "0.3"),
}
BY_NAME = {one.name: one for one in rules.ALERTS}


def written(values):
    """1x18 is promtool's "1, and 18 times as much again"."""
    start, times = values.split("x")
    return f"{start}+0x{times}" if "+" not in start else values


@pytest.fixture
def promtool(needs, tmp_path):
    """What promtool says to a case: series, and what is expected of each alert at a time."""

    def test(series, expected):
        (tmp_path / "rules.yml").write_text(rules.text(LIMITS))
        case = {
            "interval": "10s",
            "input_series": [{"series": name, "values": written(values)} for name, values in series.items()],
            "alert_rule_test": [{"eval_time": at, "alertname": name, "exp_alerts": alerts} for at, name, alerts in expected],
        }
        (tmp_path / "test.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "10s", "tests": [case]}))
        return subprocess.run([needs("promtool"), "test", "rules", "test.yml"], cwd=tmp_path, capture_output=True, text=True, check=False)

    return test


def test_every_alert_has_a_case_and_a_known_query():
    assert WRONG.keys() == BY_NAME.keys()
    assert {one.query for one in rules.ALERTS} | set(rules.RECORDED) <= set(observe.CATALOGUE)


def test_the_file_is_one(needs):
    needs("promtool")
    prometheus.check_rules(rules.text(LIMITS))


def test_nothing_fires_when_all_is_well(promtool):
    done = promtool(WELL, [("170s", name, []) for name in BY_NAME])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", WRONG)
def test_it_fires_after_its_time_and_not_before(promtool, name):
    changed, labels, value = WRONG[name]
    alert = BY_NAME[name]
    told = {"summary": f"{alert.summary} ({value})", "action": alert.action}
    fired = [{"exp_labels": labels | {"severity": alert.severity}, "exp_annotations": told}]
    done = promtool(WELL | changed, [("20s", name, []), ("170s", name, fired)])
    assert done.returncode == 0, done.stdout + done.stderr
    others = [other for other in WRONG if other != name and not (name == "NoReplica" and other == "ReplicaDown")]
    quiet = promtool(WELL | changed, [("170s", other, []) for other in others])
    assert quiet.returncode == 0, quiet.stdout + quiet.stderr


def test_an_unknown_query_gets_the_nearest_name():
    with pytest.raises(BadInput, match="did you mean ttft_p95"):
        observe.query("ttft_95")


def test_meters_have_the_names_of_the_convention():
    meters = observe.meters("m", "test")
    meters.finished("chat", 0.5, 0.1, 0.4, (10, 4))
    names = {family.name for family in text_string_to_metric_families(meters.text().decode())}
    wanted = ("request_duration", "time_to_first_token", "time_per_output_token")
    assert {f"gen_ai_server_{one}_seconds" for one in wanted} <= names
    asked = {word for one in observe.CATALOGUE.values() if one.source == "gen_ai" for word in one.text.split("(") if "_bucket" in word}
    assert {word.partition("_bucket")[0] for word in asked} <= names
