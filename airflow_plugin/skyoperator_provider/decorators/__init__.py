"""@task.sky, which airflow.decorators finds by get_provider_info."""
