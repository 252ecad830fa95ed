"""A real one-node Kubernetes with SkyPilot's images, for the demo and the tests: `python -m deploy.local VERB`.

It needs a Debian machine, root, Python and Go; no Docker and no image registry. It runs with the standard library alone
and imports nothing of the project. README.md says how it works and how to look inside.
"""
