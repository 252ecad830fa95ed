"""The log process: it keeps the log of each job and each launch, and serves it with Kubernetes' own permissions. See docs/design/logs.md."""
