"""Airflow's pages as pictures for the docs: a finished run, a task's log from its cluster, and the form of a connection.

    make screenshots                                         # starts an Airflow and runs an example on the local cluster
    python -m tests.e2e.screenshots http://localhost:8080    # asks one that has the example and lets everybody in

It takes Chromium and the Python package playwright, which brings none.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.e2e.airflow import Airflow, Run
from tests.e2e.conftest import ROOT, install
from tests.e2e.examples import airflow_with_examples

CHROMIUM = "/usr/bin/chromium"
IMAGES = ROOT / "docs/images"
DAG_ID = "sky_four_steps"
RUN_SECONDS = 300
WAIT_MILLISECONDS = 60_000
WIDE, HIGH = {"width": 1280, "height": 640}, {"width": 1280, "height": 1700}


def main(words: list[str]) -> None:
    with an_airflow(words) as airflow, browser_page() as page:
        run = airflow.run(DAG_ID)
        assert run.ended(seconds=RUN_SECONDS) == "success", run.states()
        IMAGES.mkdir(exist_ok=True)
        for name, shoot in SHOTS.items():
            (IMAGES / name).write_bytes(shoot(page, run))
            print(IMAGES.joinpath(name).relative_to(ROOT))


@contextmanager
def an_airflow(words: list[str]) -> Iterator[Airflow]:
    """Yield the Airflow of this address, or one of our own."""
    if words:
        yield Airflow(words[0].rstrip("/"))
    else:
        install()
        with tempfile.TemporaryDirectory() as folder:
            home, dags = Path(folder) / "home", Path(folder) / "dags"
            home.mkdir()
            dags.mkdir()
            with airflow_with_examples(home, dags) as processes:
                yield processes.airflow


@contextmanager
def browser_page() -> Iterator[Page]:
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser:
        page = browser.new_page(locale="en-US")
        page.set_default_timeout(WAIT_MILLISECONDS)
        yield page


def grid(page: Page, run: Run) -> bytes:
    """The run among its DAG's, and the states of its tasks."""
    page.set_viewport_size(WIDE)
    page.goto(address_of(run))
    page.get_by_role("link", name="down").first.wait_for()
    return picture(page)


def log(page: Page, run: Run) -> bytes:
    """What the job printed, in the log of the task that shows it."""
    page.set_viewport_size(WIDE)
    page.goto(f"{address_of(run)}/tasks/logs")
    page.get_by_text("epochs: 3").first.wait_for()
    return picture(page)


def form(page: Page, run: Run) -> bytes:
    """The connection's form, with the fields that are ours."""
    page.set_viewport_size(HIGH)
    page.goto(f"{run.airflow.address}/connections")
    page.get_by_role("button", name="Add Connection").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("combobox").fill("Kubernetes with skyoperator")
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Extra Fields", exact=True).click()
    dialog.get_by_text("SkyPilot dashboard").wait_for()
    return bytes(dialog.screenshot(animations="disabled"))


def address_of(run: Run) -> str:
    return f"{run.airflow.address}/dags/{run.dag_id}/runs/{run.run_id}"


def picture(page: Page) -> bytes:
    return bytes(page.screenshot(animations="disabled"))


SHOTS: dict[str, Callable[[Page, Run], bytes]] = {"airflow-run.png": grid, "airflow-log.png": log, "airflow-connection.png": form}

if __name__ == "__main__":
    main(sys.argv[1:])
