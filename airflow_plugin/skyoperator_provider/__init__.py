"""SkyClusters from Airflow: the objects that the skyoperator's controller runs with SkyPilot."""
