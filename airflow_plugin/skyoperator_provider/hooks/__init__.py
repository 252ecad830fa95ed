"""The ways to the Kubernetes API: an Airflow connection becomes a client here, and what it answers becomes words for a task's log."""
