"""Operators: what a DAG is written with. They put together what the modules above decide and do; each is short."""
