"""kubectl sky wait and down: by watch, with an exit code for each end."""

from __future__ import annotations

import pytest

from tests.unit.fake_api import complete, conditioned, failed, sky_cluster
from tests.unit.sky_command import Sky, pauses, sky

__all__ = ["pauses", "sky"]

OBJECT = "/apis/skyoperator.dev/v1alpha1/namespaces/team/skyclusters/train"
LIST = "/apis/skyoperator.dev/v1alpha1/namespaces/team/skyclusters"
SHORT = ("--timeout", "0s")


def test_complete_is_seen_by_the_watch(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    sky.api.on_watch.append(lambda: sky.api.put(complete(sky_cluster())))

    assert sky.run("wait", "train", "--for=complete").code == 0
    assert len(sky.api.queries(LIST)) == 2, "one list, one watch"


def test_what_is_so_already_needs_no_watch(sky: Sky) -> None:
    sky.api.put(complete(sky_cluster()))

    assert sky.run("wait", "train", "--for=complete", *SHORT).code == 0


def test_each_condition_has_its_word(sky: Sky) -> None:
    """One that holds is not another."""
    sky.api.put(conditioned(sky_cluster(), Accepted=("True", "TaskAccepted", ""), Ready=("False", "Launching", "")))
    assert sky.run("wait", "train", "--for=accepted", *SHORT).code == 0
    assert sky.run("wait", "train", "--for=ready", *SHORT).code == 124

    sky.api.on_watch.append(lambda: sky.api.put(conditioned(sky_cluster(), Ready=("True", "Running", ""))))
    assert sky.run("wait", "train", "--for=ready").code == 0


def test_an_older_generation_s_condition_does_not_count(sky: Sky) -> None:
    edited = sky_cluster(generation=2)
    sky.api.put(conditioned(edited, generation=1, Complete=("True", "JobSucceeded", "")))

    ran = sky.run("wait", "train", "--for=complete", *SHORT)

    assert ran.code == 124
    assert "has not spoken of this spec yet" in ran.err


@pytest.mark.parametrize("goal", ["complete", "ready", "accepted"])
def test_what_failed_is_not_waited_for(sky: Sky, goal: str) -> None:
    sky.api.put(sky_cluster())
    sky.api.on_watch.append(lambda: sky.api.put(failed(sky_cluster())))

    ran = sky.run("wait", "train", f"--for={goal}")

    assert ran.code == 1
    assert "JobFailed: Job 1 failed" in ran.err


@pytest.mark.parametrize("goal", ["complete", "ready", "accepted"])
def test_what_is_not_accepted_is_not_waited_for(sky: Sky, goal: str) -> None:
    sky.api.put(conditioned(sky_cluster(), Accepted=("False", "InvalidTask", "resources.gpu is no field.")))

    ran = sky.run("wait", "train", f"--for={goal}")

    assert ran.code == 1
    assert "resources.gpu is no field." in ran.err


def test_a_cluster_without_a_job_is_never_complete(sky: Sky) -> None:
    this = sky_cluster()
    this["spec"]["task"] = {"resources": {"cpus": 1}}
    sky.api.put(this)

    ran = sky.run("wait", "train", "--for=complete")

    assert ran.code == 1
    assert "no task.run" in ran.err


@pytest.mark.parametrize("goal", ["complete", "ready"])
def test_what_is_deleted_meanwhile_is_not_waited_for(sky: Sky, goal: str) -> None:
    sky.api.put(sky_cluster())
    sky.api.on_watch.append(lambda: sky.api.remove("team", "train"))

    assert sky.run("wait", "train", f"--for={goal}").code == 1


def test_another_object_of_that_name_is_not_the_one_that_was_meant(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    sky.api.on_watch.append(lambda: sky.api.put(complete(sky_cluster(uid="another"))))

    assert sky.run("wait", "train", "--for=complete").code == 1


def test_deleted(sky: Sky) -> None:
    assert sky.run("wait", "train", "--for=deleted").code == 0
    sky.api.put(failed(sky_cluster()))
    assert sky.run("wait", "train", "--for=deleted", *SHORT).code == 124
    sky.api.on_watch.append(lambda: sky.api.remove("team", "train"))
    assert sky.run("wait", "train", "--for=deleted").code == 0


def test_what_is_not_there_can_t_be_waited_for(sky: Sky) -> None:
    ran = sky.run("wait", "train", "--for=complete")

    assert ran.code == 3
    assert "There is no SkyCluster train in namespace team." in ran.err


def test_a_time_out_tells_how_it_stands(sky: Sky) -> None:
    sky.api.put(conditioned(sky_cluster(phase="Launching"), Ready=("False", "Launching", "SkyPilot is launching the cluster.")))

    ran = sky.run("wait", "train", "--for=complete", "--timeout", "50ms")

    assert ran.code == 124
    assert "Launching: SkyPilot is launching the cluster." in ran.err


def test_a_watch_from_too_long_ago_lists_anew(sky: Sky) -> None:
    """The change is in no watch, only in the list after the 410."""
    sky.api.put(sky_cluster())

    def expire() -> None:
        sky.api.put(complete(sky_cluster()))
        sky.api.oldest_version = sky.api.version

    sky.api.on_watch.append(expire)

    assert sky.run("wait", "train", "--for=complete").code == 0


def test_a_right_that_lacks_is_named(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    sky.api.forbidden.add(("watch", "skyclusters"))

    ran = sky.run("wait", "train", "--for=complete")

    assert ran.code == 3
    assert "You may not watch skyclusters in namespace team." in ran.err


@pytest.mark.parametrize("words", ["soon", "5", "1m junk", "-3s", ""])
def test_a_duration_that_is_none_is_refused(sky: Sky, words: str) -> None:
    assert sky.run("wait", "train", "--for=complete", "--timeout", words).code == 2


def test_down_waits_until_the_objects_are_gone_and_says_what_holds_them(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    deleting = conditioned(sky_cluster(), Ready=("False", "Deleting", "SkyPilot could not take the cluster down."))
    sky.api.on_watch += [lambda: sky.api.put(deleting), lambda: sky.api.remove("team", "train")]

    ran = sky.run("down", "train")

    assert ran.code == 0
    assert ran.text == "SkyCluster team/train is being deleted.\nSkyCluster team/train is gone.\n"
    assert "SkyPilot could not take the cluster down." in ran.err


def test_down_gives_up_waiting_in_the_end(sky: Sky) -> None:
    sky.api.put(sky_cluster())

    ran = sky.run("down", "train", *SHORT)

    assert ran.code == 124
    assert "Its deletion goes on" in ran.err


def test_down_need_not_wait(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    sky.api.put(sky_cluster("other"))

    assert sky.run("down", "train", "other", "--no-wait").code == 0
    assert all(this["metadata"]["deletionTimestamp"] for this in sky.api.objects.values())
    assert not [query for query in sky.api.queries(LIST) if "watch" in query]


def test_orphan_is_set_before_the_deletion(sky: Sky) -> None:
    sky.api.put(sky_cluster())

    sky.run("down", "train", "--orphan", "--no-wait")

    assert [method for method, path, _ in sky.api.asked if path == OBJECT] == ["GET", "PATCH", "DELETE"]
    assert sky.api.objects["team", "train"]["spec"]["deletionPolicy"] == "Orphan"


def test_an_object_that_took_the_name_meanwhile_is_not_deleted(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    sky.api.on_delete = lambda: sky.api.put(sky_cluster(uid="another"))

    ran = sky.run("down", "train")

    assert ran.code == 3
    assert "deletionTimestamp" not in sky.api.objects["team", "train"]["metadata"]


def test_a_name_that_is_none_deletes_nothing(sky: Sky) -> None:
    """Neither that one nor the others: what is meant is not clear."""
    sky.api.put(sky_cluster())

    assert sky.run("down", "train", "trian").code == 3
    assert "deletionTimestamp" not in sky.api.objects["team", "train"]["metadata"]


def test_all_asks_at_a_terminal_and_nowhere_else(sky: Sky) -> None:
    sky.api.put(sky_cluster())

    ran = sky.run("down", "--all")

    assert ran.code == 3
    assert "--yes" in ran.err
    assert "deletionTimestamp" not in sky.api.objects["team", "train"]["metadata"]


@pytest.mark.parametrize(("answer", "code", "is_deleted"), [("y\n", 0, True), ("n\n", 130, False)])
def test_all_does_as_the_person_says(sky: Sky, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, *, is_deleted: bool) -> None:
    sky.api.put(sky_cluster())
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda prompt: answer.strip())

    assert sky.run("down", "--all", "--no-wait").code == code
    assert ("deletionTimestamp" in sky.api.objects["team", "train"]["metadata"]) is is_deleted


def test_all_with_yes_deletes_the_namespace_s_objects_page_by_page(sky: Sky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyoperator.cli.kube.PAGE", "2")
    for name in ("a", "b", "c"):
        sky.api.put(sky_cluster(name))
    sky.api.put(sky_cluster("d", namespace="elsewhere"))

    assert sky.run("down", "--all", "--yes", "--no-wait").code == 0
    doomed = {name for (_, name), this in sky.api.objects.items() if "deletionTimestamp" in this["metadata"]}
    assert doomed == {"a", "b", "c"}


@pytest.mark.parametrize("wrong", [(), ("train", "--all")])
def test_down_wants_names_or_all(sky: Sky, wrong: tuple[str, ...]) -> None:
    assert sky.run("down", *wrong).code == 2
