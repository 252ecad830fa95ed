"""Which cluster and namespace are meant; free of everything that is slow to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """The flags that kubectl has too; None is what the kubeconfig says."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None

    def under(self, outer: Target) -> Target:
        """Return this, with what it leaves open taken from the flags before the command."""
        return Target(self.kubeconfig or outer.kubeconfig, self.context or outer.context, self.namespace or outer.namespace)
