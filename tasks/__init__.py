"""Prefect tasks, thin, and the processes and folders that they need."""
