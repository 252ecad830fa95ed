"""Jinja for tasks that are shell: Airflow's templates, but for comments.

`${#A[@]}`, the length of a shell array, begins a comment in Jinja, and the task would not even render. So comments are `{##` and `##}`
here. And no file name ends a template: with `template_ext`, `run: python t.py --config conf.yaml` is taken for a file of that name
(airflow/sdk/definitions/_internal/templater.py, render_template).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2

_COMMENT_START: Final = "{##"
_COMMENT_END: Final = "##}"


def for_shell(env: jinja2.Environment) -> jinja2.Environment:
    """Return the environment with comments that shell has no other use for."""
    if env.comment_start_string == _COMMENT_START:
        return env
    return env.overlay(comment_start_string=_COMMENT_START, comment_end_string=_COMMENT_END)


def load(path: str, env: jinja2.Environment) -> str:
    """Return a file's text: an absolute path as it is, another from the folder of the DAG file or from `template_searchpath`.

    Raises FileNotFoundError with what was looked for, and where.
    """
    if Path(path).is_absolute():
        return Path(path).read_text(encoding="utf-8")
    loader = env.loader or jinja2.DictLoader({})
    try:
        return loader.get_source(env, path)[0]
    except jinja2.TemplateNotFound as missing:
        places = ", ".join(map(str, getattr(loader, "searchpath", ()))) or "nowhere, since the task has no DAG"
        raise FileNotFoundError(
            f"There is no file {path!r}; looked for in: {places}. Name it from the folder of the DAG file."
        ) from missing


def render(text: str, env: jinja2.Environment, context: Mapping[str, Any]) -> str:
    """Return the rendered text: text, even for a DAG that renders native objects, since it is YAML and to be read as such."""
    return "".join(str(part) for part in for_shell(env).from_string(text).generate(context))
