"""kubectl sky logs: each byte once, whatever breaks; the exit code is the job's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.fake_api import Act, FakeLog, complete, conditioned, failed, sky_cluster
from tests.unit.sky_command import Sky, pauses, sky

__all__ = ["pauses", "sky"]

LOG = "/apis/logs.skyoperator.dev/v1alpha1/namespaces/team/skyclusters/train/log"
TEXT = b"".join(b"\x1b[32mstep %d\x1b[0m of \xc3\xa4 job\n" % number for number in range(500))
PLAIN = TEXT.replace(b"\x1b[32m", b"").replace(b"\x1b[0m", b"")


def has_log(sky: Sky, log: FakeLog, *, attempt: int = 1, is_launch: bool = False) -> FakeLog:
    sky.api.logs[("uid-of-train", str(attempt), is_launch)] = log
    return log


def test_a_log_is_printed_as_it_is_read_page_by_page(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(TEXT, page_bytes=1001))

    ran = sky.run("logs", "train", "--color")

    assert (ran.code, ran.out, ran.err) == (0, TEXT, "")


def test_off_a_terminal_codes_are_stripped_even_where_a_page_ends_within_one(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(TEXT[:700], page_bytes=3))

    ran = sky.run("logs", "train")

    assert PLAIN.startswith(ran.out)
    assert len(ran.out) > 350
    assert {query["ansi"] for query in sky.api.queries(LOG)} == {"true"}


@pytest.mark.parametrize(("no_color", "expected"), [(False, TEXT), (True, PLAIN)])
def test_on_a_terminal_codes_stay_unless_the_user_wants_no_colour(
    sky: Sky, monkeypatch: pytest.MonkeyPatch, *, no_color: bool, expected: bytes
) -> None:
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(TEXT))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")

    assert sky.run("logs", "train").out == expected


def test_a_page_that_breaks_off_is_an_error_unless_it_is_followed(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(TEXT, broken_pages=1))

    ran = sky.run("logs", "train")

    assert ran.code == 3
    assert "broke off" in ran.err


def test_a_dropped_follow_goes_on_at_its_byte(sky: Sky) -> None:
    """Cut in the middle of a code, of a UTF-8 character, at a page and before anything was sent."""
    sky.api.put(complete(sky_cluster()))
    acts = [
        Act(TEXT[:7000], cut_after=2),
        Act(b"", cut_after=0),
        Act(TEXT[7000:9000], cut_after=1501),
        Act(TEXT[9000:], then="complete", cut_after=77),
    ]
    has_log(sky, FakeLog(b"", state="live", acts=acts, page_bytes=999, broken_pages=2))

    ran = sky.run("logs", "train", "-f", "--color")

    assert (ran.code, ran.out) == (0, TEXT)


def test_a_hole_before_the_stream_is_told_once(sky: Sky) -> None:
    """The headers, not the count of bytes, tell where the log goes on behind bytes that were cut."""
    sky.api.put(complete(sky_cluster()))
    data = b"head\n" + b"x" * 1000 + b"tail\n"
    has_log(sky, FakeLog(data, state="live", hole=(5, 1005), acts=[Act(b"more\n", cut_after=3), Act(b"", then="complete")]))

    ran = sky.run("logs", "train", "-f")

    assert ran.out == b"head\n[skyoperator: 1000 bytes were cut here]\ntail\nmore\n"


@pytest.mark.parametrize("cut_after", [0, 3, 5, 9, 18, 19, 30, 43, 44, 45, 58, 62, 70])
def test_a_hole_within_the_stream_shifts_nothing_after_a_drop(sky: Sky, cut_after: int) -> None:
    """The reader was slow, the job wrote much: the bound cut what he had not read. The drop comes anywhere, also within that line."""
    sky.api.put(complete(sky_cluster()))
    grown = b"head\n" + b"x" * 1000 + b"[skyoperator: not\ntail\n"
    acts = [Act(grown, cut_after=cut_after), Act(b"more\n", then="complete")]
    has_log(sky, FakeLog(b"", state="live", hole=(5, 1005), acts=acts))

    ran = sky.run("logs", "train", "-f")

    assert ran.out == b"head\n[skyoperator: 1000 bytes were cut here]\n[skyoperator: not\ntail\nmore\n"


def test_the_server_s_last_words_are_no_bytes_of_the_log(sky: Sky) -> None:
    sky.api.put(complete(sky_cluster()))
    words = b"[skyoperator: this ends here: nobody can tell whether you may read on]\n"
    has_log(sky, FakeLog(b"", state="live", acts=[Act(b"1\n", last_words=words), Act(b"2\n", then="complete")]))

    assert sky.run("logs", "train", "-f").out == b"1\n" + words + b"2\n"


def test_the_tail_of_a_log_that_grows(sky: Sky) -> None:
    sky.api.put(complete(sky_cluster()))
    has_log(sky, FakeLog(b"1\n2\n3\n", state="live", acts=[Act(b"4\n", cut_after=1), Act(b"5\n", then="complete")]))

    assert sky.run("logs", "train", "-f", "--tail", "2").out == b"2\n3\n4\n5\n"


def test_the_tail_of_a_log_that_has_ended(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(b"1\n2\n3\n"))

    assert sky.run("logs", "train", "--tail", "1").out == b"3\n"


def test_one_rank_is_polled_by_the_offsets_that_the_server_tells(sky: Sky, pauses: list[float]) -> None:
    """What a filter leaves out counts in offsets: bytes of a stream could not be counted."""
    sky.api.put(complete(sky_cluster()))
    log = has_log(sky, FakeLog(b"1\n", state="live"))

    def grow(seconds: float) -> None:
        log.data += b"2\n"
        log.state = "complete"

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("skyoperator.cli.pace.pause", grow)
        ran = sky.run("logs", "train", "-f", "--rank", "1")

    assert ran.out == b"1\n2\n"
    assert all(query["rank"] == "1" and "follow" not in query for query in sky.api.queries(LOG))


def test_a_server_that_stays_away_is_given_up(sky: Sky, pauses: list[float]) -> None:
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(TEXT, is_down=True))

    ran = sky.run("logs", "train", "-f")

    assert ran.code == 3
    assert "error trying to reach service" in ran.err
    assert 60 < sum(pauses) < 600


def test_a_job_that_is_silent_for_long_is_not_given_up(sky: Sky) -> None:
    """Each silent stream ends at a time-out, of ours or of a proxy."""
    sky.api.put(complete(sky_cluster()))
    has_log(sky, FakeLog(state="live", acts=[*[Act(cut_after=0)] * 100, Act(b"done\n", then="complete")]))

    ran = sky.run("logs", "train", "-f")

    assert (ran.code, ran.out) == (0, b"done\n")


def test_a_server_that_comes_back_is_found_again(sky: Sky, monkeypatch: pytest.MonkeyPatch) -> None:
    sky.api.put(complete(sky_cluster()))
    log = has_log(sky, FakeLog(b"hello\n", is_down=True))
    monkeypatch.setattr("skyoperator.cli.pace.pause", lambda seconds: setattr(log, "is_down", False))

    assert sky.run("logs", "train", "-f").out == b"hello\n"


def test_a_failed_job_is_exit_1_with_its_message(sky: Sky) -> None:
    sky.api.put(failed(sky_cluster()))
    has_log(sky, FakeLog(b"boom\n"))

    ran = sky.run("logs", "train", "-f")

    assert (ran.code, ran.out) == (1, b"boom\n")
    assert "JobFailed: Job 1 failed with return code list: [3]" in ran.err


def test_the_result_is_awaited_and_an_older_generation_s_is_none(sky: Sky) -> None:
    """Complete of generation 1 says nothing of generation 2, whose job failed."""
    edited = sky_cluster(generation=2)
    sky.api.put(conditioned(edited, generation=1, Complete=("True", "JobSucceeded", "")))
    has_log(sky, FakeLog(b"done\n"))
    sky.api.on_watch.append(lambda: sky.api.put(failed(edited)))

    assert sky.run("logs", "train", "-f").code == 1


def test_a_result_that_never_comes_is_a_time_out(sky: Sky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skyoperator.cli.results.RESULT_SECONDS", 0.0)
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(b"done\n"))

    ran = sky.run("logs", "train", "-f")

    assert ran.code == 124
    assert "kubectl sky status train" in ran.err


def test_an_object_that_is_deleted_meanwhile_has_no_result(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(b"done\n"))
    sky.api.on_watch.append(lambda: sky.api.remove("team", "train"))

    ran = sky.run("logs", "train", "-f")

    assert ran.code == 1
    assert "was deleted" in ran.err


def test_another_object_of_that_name_says_nothing_about_this_one(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(b"done\n"))
    sky.api.on_watch.append(lambda: sky.api.put(complete(sky_cluster(uid="another"))))

    assert sky.run("logs", "train", "-f").code == 1


def test_a_retry_s_log_follows(sky: Sky) -> None:
    """The offset of attempt 1 means nothing in attempt 2's log."""
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(b"first\n"))
    has_log(sky, FakeLog(b"second\nthird\n"), attempt=2)
    sky.api.on_watch.append(lambda: sky.api.put(complete(sky_cluster(launch={"attempt": 2}))))

    ran = sky.run("logs", "train", "-f", "--tail", "1")

    assert (ran.code, ran.out) == (0, b"first\nsecond\nthird\n")
    assert "Attempt 2" in ran.err


def test_a_chosen_attempt_ends_with_itself(sky: Sky) -> None:
    sky.api.put(complete(sky_cluster(launch={"attempt": 2})))
    has_log(sky, FakeLog(b"first\n"))

    ran = sky.run("logs", "train", "-f", "--attempt", "1")

    assert (ran.code, ran.out) == (1, b"first\n")


def test_a_log_that_is_not_there_yet_is_waited_for(sky: Sky, monkeypatch: pytest.MonkeyPatch) -> None:
    """First there is no launch, then no log of it."""
    sky.api.put(sky_cluster(launch=None, phase="Queued"))

    def end() -> None:
        has_log(sky, FakeLog(b"hello\n"))
        sky.api.put(complete(sky_cluster()))

    steps: list[Callable[[], None]] = [lambda: sky.api.put(sky_cluster(phase="Launching")), lambda: None, end]
    monkeypatch.setattr("skyoperator.cli.pace.pause", lambda seconds: steps.pop(0)())

    ran = sky.run("logs", "train", "-f")

    assert (ran.code, ran.out) == (0, b"hello\n")
    assert ran.err.count("Waiting") == 1


def test_a_launch_that_failed_has_no_job_log_to_wait_for(sky: Sky) -> None:
    sky.api.put(failed(sky_cluster(), "No node has a GPU."))

    ran = sky.run("logs", "train", "-f")

    assert ran.code == 1
    assert "No node has a GPU." in ran.err


def test_a_refused_object_is_not_waited_for(sky: Sky) -> None:
    sky.api.put(failed(sky_cluster(launch=None), "The task is misspelt."))

    ran = sky.run("logs", "train", "-f")

    assert ran.code == 1
    assert "The task is misspelt." in ran.err


@pytest.mark.parametrize(("launch", "code"), [({"attempt": 1, "finishedAt": "2026-01-01T00:00:00Z"}, 0), ({"attempt": 1}, 1)])
def test_a_launch_s_log_ends_with_the_launch_s_result(sky: Sky, launch: dict[str, object], code: int) -> None:
    """A job that failed later does not make its launch a failure."""
    sky.api.put(failed(sky_cluster(launch=launch)))
    has_log(sky, FakeLog(b"provisioning\n"), is_launch=True)

    ran = sky.run("logs", "train", "-f", "--provision")

    assert (ran.code, ran.out) == (code, b"provisioning\n")


def test_another_job_s_result_is_not_the_object_s(sky: Sky) -> None:
    sky.api.put(failed(sky_cluster(job={"id": 1})))
    has_log(sky, FakeLog(b"second job\n"))

    assert sky.run("logs", "train", "-f", "--job", "2").code == 0
    assert sky.run("logs", "train", "-f", "--job", "1").code == 1


def test_what_is_missing_is_said(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(b"half\n", state="incomplete", message="The cluster was gone before the rest was had."))

    ran = sky.run("logs", "train")

    assert (ran.code, ran.out) == (0, b"half\n")
    assert "before the rest" in ran.err


def test_the_parameters_reach_the_server(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(b""), attempt=3, is_launch=True)

    sky.run("logs", "train", "--job", "7", "--attempt", "3", "--provision", "--rank", "0")

    query = sky.api.queries(LOG)[0]
    expected = {"job": "7", "attempt": "3", "provision": "true", "rank": "0", "ansi": "true", "offsetBytes": "0", "limitBytes": "4194304"}
    assert query == expected


def test_previous_is_asked_for(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(b""))

    assert sky.run("logs", "train", "--previous").code == 0
    assert sky.api.queries(LOG)[0]["previous"] == "true"


def test_an_object_that_is_gone_is_read_by_its_uid(sky: Sky) -> None:
    has_log(sky, FakeLog(b"long ago\n"))

    assert sky.run("logs", "train", "--uid", "uid-of-train").out == b"long ago\n"


@pytest.mark.parametrize("wrong", [("--previous", "-f"), ("--previous", "--attempt", "1"), ("--tail", "-1")])
def test_what_makes_no_sense_is_refused(sky: Sky, wrong: tuple[str, ...]) -> None:
    assert sky.run("logs", "train", *wrong).code == 2


def test_no_such_object_names_the_near_ones(sky: Sky) -> None:
    sky.api.put(sky_cluster("train-7b"))

    ran = sky.run("logs", "train-7")

    assert ran.code == 3
    assert "There is no SkyCluster train-7 in namespace team. Did you mean train-7b?" in ran.err


def test_an_object_without_that_log_is_told_in_the_server_s_words(sky: Sky) -> None:
    sky.api.put(sky_cluster())

    assert "team/train has no log of that kind yet" in sky.run("logs", "train").err


def test_a_lacking_right_is_named(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    sky.api.forbidden.add(("get", "skyclusters/log"))

    ran = sky.run("logs", "train")

    assert ran.code == 3
    assert 'apiGroups: ["logs.skyoperator.dev"], resources: [skyclusters/log], verbs: [get]' in ran.err


def test_a_reader_of_logs_needs_no_right_on_the_objects(sky: Sky) -> None:
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(b"hello\n"))
    sky.api.forbidden |= {("get", "skyclusters"), ("list", "skyclusters")}

    assert sky.run("logs", "train").out == b"hello\n"


def test_ctrl_c_is_130_and_a_closed_pipe_is_quiet(sky: Sky, monkeypatch: pytest.MonkeyPatch) -> None:
    sky.api.put(sky_cluster())
    has_log(sky, FakeLog(TEXT))
    for raised, code in ((KeyboardInterrupt, 130), (BrokenPipeError, 141)):

        def stop(*args: object, raised: type[BaseException] = raised) -> None:
            raise raised

        monkeypatch.setattr("skyoperator.cli.sink.Sink.write", stop)
        ran = sky.run("logs", "train")
        assert (ran.code, ran.out, ran.err) == (code, b"", "")
