"""The skyoperator controller: one process that reconciles SkyClusters by driving a SkyPilot API server over HTTP.

It never imports SkyPilot. Which module may import which is in pyproject.toml, checked by import-linter.
"""
