"""The same release and the same objects as in tests/e2e; these tests take long, or break what other tests share."""

from tests.e2e.conftest import apply, namespace, release

__all__ = ["apply", "namespace", "release"]
