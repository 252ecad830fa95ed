"""The log process: it keeps the log of each job and launch, and serves it with Kubernetes' own permissions. See docs/design/logs.md."""
