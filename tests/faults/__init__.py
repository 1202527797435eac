"""Faults of endpoints, processes, disks and configs, under load: nothing is lost."""
