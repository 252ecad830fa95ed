"""docs/airflow-deaths.md says what came out, on each Airflow the same deaths."""

from __future__ import annotations

from tests.deaths.table import PATH, page, results


def test_the_page_is_made_of_the_results() -> None:
    assert PATH.read_text(encoding="utf-8") == page()


def test_each_airflow_has_died_every_death() -> None:
    deaths = {version: [(row.death, row.where) for row in rows] for version, rows in results().items()}
    (same,) = {tuple(rows) for rows in deaths.values()}
    assert len(set(same)) == len(same)
