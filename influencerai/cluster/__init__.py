"""The cluster: jobs placed on the nodes of a Ray cluster, one task per attempt. The only room with Ray's core."""
