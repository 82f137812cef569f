"""Versions, decisions and channels in an S3 bucket. Imports neither torch, Prefect nor DVC."""
