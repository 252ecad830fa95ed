"""A function of a DAG, run on a cluster: what is sent there, and what comes back.

Pure: the standard library only, and cloudpickle if it is asked for; nothing of Airflow. `far` is what runs on the cluster, and is sent as
source. source, arguments -> carrier (the text of spec.task.run) -> far -> frames in the log -> values.
"""
