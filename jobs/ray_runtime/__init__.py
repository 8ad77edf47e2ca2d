"""What jobs need of Ray: the cluster, tasks, workers."""
