"""What `make soak` runs: kills, races, faults and full disks in full counts, on the real parts."""
