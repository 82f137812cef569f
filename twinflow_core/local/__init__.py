"""The embedded services of one checkout: an S3 server and a Prefect server on loopback, and the doctor."""
