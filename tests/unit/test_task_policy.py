"""What the installer's values let through, and what no value does."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from skyoperator.settings import Settings, SettingsError
from skyoperator.task import Policy, PolicyError, TaskRejected, check, read_policy

ENVIRONMENT = {
    "SKYOPERATOR_SKYPILOT_ENDPOINT": "http://sky:46580",
    "SKYOPERATOR_CREDENTIALS_DIR": "/etc/credentials",
    "SKYOPERATOR_INSTANCE": "sky/skyoperator",
    "SKYOPERATOR_LEASE_NAMESPACE": "sky",
    "SKYOPERATOR_LEASE_NAME": "skyoperator",
}
ON_REQUEST: dict[str, Any] = {
    "config": {"kubernetes": {"provision_timeout": 600, "pod_config": {"spec": {"hostNetwork": True}}}},
    "event_callback": "curl x",
    "api_server_access": True,
    "inputs": {"s3://b": 1},
    "outputs": {"s3://b": 0.5},
}
NEVER: dict[str, Any] = {
    "secrets": {"TOKEN": "x"},
    "managed_secrets": ["TOKEN"],
    "service": {"replicas": 1},
    "pool": {"workers": 1},
    "file_mounts_mapping": {"/x": "/etc"},
    "volume_mounts": [],
    "_metadata": {},
    "_user_specified_yaml": "run: x",
}
EVERYTHING = Policy(allow_task_keys=(*ON_REQUEST, *NEVER))


def rejected(task: dict[str, Any], policy: Policy) -> TaskRejected:
    with pytest.raises(TaskRejected) as raised:
        check(task, policy=policy)
    return raised.value


class TestTaskKeys:
    @pytest.mark.parametrize("key", ON_REQUEST)
    def test_a_key_that_is_named_is_let_through_alone(self, key: str) -> None:
        check({key: ON_REQUEST[key]}, policy=Policy(allow_task_keys=(key,)))
        assert rejected({key: ON_REQUEST[key]}, Policy(allow_task_keys=tuple(set(ON_REQUEST) - {key}))).reason == "PolicyDenied"

    @pytest.mark.parametrize("key", NEVER)
    def test_no_policy_lets_through_what_would_be_a_way_around_it(self, key: str) -> None:
        assert rejected({key: NEVER[key]}, EVERYTHING).reason == "PolicyDenied"
        if not key.startswith("_"):
            with pytest.raises(PolicyError, match=r"policy\.allowTaskKeys\[0\]"):
                read_policy({"allowTaskKeys": [key]})

    def test_keys_of_skypilots_own_are_denied_inside_what_is_let_through(self) -> None:
        assert "config.kubernetes._x" in str(rejected({"config": {"kubernetes": {"_x": 1}}}, EVERYTHING))

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("config", "x"),
            ("event_callback", 1),
            ("api_server_access", "yes"),
            ("inputs", {}),
            ("inputs", {"a": 1, "b": 1}),
            ("outputs", {"a": 0}),
        ],
    )
    def test_what_is_let_through_has_to_be_of_its_kind(self, key: str, value: Any) -> None:
        assert rejected({key: value}, EVERYTHING).reason == "InvalidTask"


PLACES = Policy(allowed_infra=("k8s/my-context", "aws/us-east-1", "gcp", "ssh/pool"))


class TestInfra:
    @pytest.mark.parametrize(
        "resources",
        [
            {"infra": "k8s/my-context"},
            {"infra": "Kubernetes/my-context"},
            {"cloud": "kubernetes", "region": "my-context"},
            {"infra": "aws/us-east-1"},
            {"infra": "AWS/us-east-1/us-east-1a"},
            {"cloud": "aws", "region": "us-east-1", "zone": "us-east-1b"},
            {"infra": "gcp"},
            {"infra": "gcp/*/us-central1-a"},
            {"cloud": "GCP", "zone": "us-central1-a"},
            {"infra": "ssh/pool"},
            {"cloud": "ssh", "region": "ssh-pool"},
            {"infra": "gcp", "any_of": [{"cpus": 1}, {"infra": "aws/us-east-1"}]},
            {"infra": "azure", "ordered": [{"infra": "gcp"}]},
            {"cloud": "aws", "any_of": [{"region": "us-east-1"}]},
        ],
        ids=str,
    )
    def test_a_place_that_is_allowed_or_lies_below(self, resources: dict[str, Any]) -> None:
        check({"resources": resources}, policy=PLACES)

    @pytest.mark.parametrize(
        "resources",
        [
            {"infra": "k8s"},
            {"infra": "k8s/my-context/below"},
            {"infra": "k8s/ssh-other"},
            {"cloud": "kubernetes", "region": "ssh-other"},
            {"cloud": "kubernetes"},
            {"infra": "aws"},
            {"infra": "aws/us-east-10"},
            {"infra": "aws/*/us-east-1a"},
            {"infra": "azure"},
            {"cloud": "aws", "zone": "us-east-1a"},
            {"infra": "gcp", "any_of": [{"cpus": 1}, {"infra": "aws"}]},
            {"infra": "gcp", "ordered": [{"infra": "gcp"}, {"infra": "azure"}]},
        ],
        ids=str,
    )
    def test_any_other_place_is_denied_with_the_places_that_are_not(self, resources: dict[str, Any]) -> None:
        error = rejected({"resources": resources}, PLACES)
        assert error.reason == "PolicyDenied"
        assert "k8s/my-context, aws/us-east-1, gcp, ssh/pool" in str(error)

    @pytest.mark.parametrize(
        ("task", "path"),
        [
            ({}, "resources"),
            ({"resources": None}, "resources"),
            ({"resources": {"cpus": 1}}, "resources"),
            ({"resources": {"infra": "*"}}, "resources"),
            ({"resources": {"infra": "*/us-east-1"}}, "resources"),
            ({"resources": {"region": "us-east-1"}}, "resources"),
            ({"resources": {"any_of": [{"infra": "gcp"}, {"cpus": 1}]}}, "resources.any_of[1]"),
        ],
        ids=str,
    )
    def test_a_task_that_leaves_the_place_to_skypilot_is_told_to_name_one(self, task: dict[str, Any], path: str) -> None:
        error = rejected(task, PLACES)
        assert error.reason == "PolicyDenied"
        assert error.problems == (f"spec.task.{path}: names no infra; allowed are {', '.join(PLACES.allowed_infra)}: add infra",)

    def test_without_a_list_every_place_is_allowed(self) -> None:
        check({})
        check({"resources": {"infra": "azure"}}, policy=Policy())

    @given(
        entries=st.lists(st.sampled_from(["k8s", "aws/us-east-1", "gcp/us-central1", "azure"]), min_size=1),
        infra=st.sampled_from(["k8s/a", "aws", "azure/x"]),
    )
    def test_more_entries_never_allow_less(self, entries: list[str], infra: str) -> None:
        task = {"resources": {"infra": infra}}
        try:
            check(task, policy=Policy(allowed_infra=tuple(entries)))
        except TaskRejected:
            rejected(task, Policy(allowed_infra=tuple(entries[:-1]) or ("gcp",)))


class TestReading:
    def test_the_values_of_the_chart(self) -> None:
        values: dict[str, Any] = {
            "allowTaskKeys": ["config"],
            "allowedInfra": ["k8s", "aws/us-east-1"],
            "allowedBuckets": ["s3://datasets"],
            "allowedVolumes": ["scratch"],
            "defaultAutostopMinutes": 15,
        }
        assert read_policy(values) == Policy(("s3://datasets",), ("scratch",), ("k8s", "aws/us-east-1"), ("config",), 15)

    def test_nothing_said_is_the_strictest_policy(self) -> None:
        assert read_policy({}) == Policy()

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            ({"allowedInfar": []}, "policy.allowedInfar: there is no such key; did you mean allowedInfra?"),
            ({"allowTaskKeys": ["confg"]}, "policy.allowTaskKeys[0]"),
            ({"allowTaskKeys": ["Config"]}, "policy.allowTaskKeys[0]"),
            ({"allowTaskKeys": "config"}, "policy.allowTaskKeys: must be a list"),
            ({"allowedInfra": ["mars"]}, "policy.allowedInfra[0]"),
            ({"allowedInfra": ["gcp", "aws/*/us-east-1a"]}, "policy.allowedInfra[1]"),
            ({"allowedInfra": ["*"]}, "policy.allowedInfra[0]"),
            ({"allowedBuckets": ["datasets"]}, "policy.allowedBuckets[0]"),
            ({"allowedBuckets": ["s3://a/../b"]}, "policy.allowedBuckets[0]"),
            ({"allowedVolumes": ["a b"]}, "policy.allowedVolumes[0]"),
            ({"defaultAutostopMinutes": 0}, "policy.defaultAutostopMinutes"),
            ({"defaultAutostopMinutes": True}, "policy.defaultAutostopMinutes"),
            ([], "policy: must be an object"),
        ],
        ids=str,
    )
    def test_a_word_that_means_nothing_is_an_error(self, values: Any, told: str) -> None:
        with pytest.raises(PolicyError) as raised:
            read_policy(values)
        assert told in str(raised.value)


class TestSettings:
    def test_the_policy_comes_as_one_variable(self) -> None:
        settings = Settings.from_environment({**ENVIRONMENT, "SKYOPERATOR_POLICY": '{"allowedInfra": ["k8s"]}'})
        assert settings.policy == Policy(allowed_infra=("k8s",))
        assert Settings.from_environment(ENVIRONMENT).policy == Policy()

    @pytest.mark.parametrize(
        ("text", "told"), [("{", "not JSON"), ("[]", "policy: must be"), ('{"x": 1}', "policy.x: there is no such key")]
    )
    def test_one_that_makes_no_sense_stops_the_controller_with_the_name_of_the_value(self, text: str, told: str) -> None:
        with pytest.raises(SettingsError, match="SKYOPERATOR_POLICY") as raised:
            Settings.from_environment({**ENVIRONMENT, "SKYOPERATOR_POLICY": text})
        assert told in str(raised.value)
