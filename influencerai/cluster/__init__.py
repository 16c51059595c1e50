"""The cluster: jobs placed on the nodes of a Ray cluster, one task per attempt. The only package with Ray's core."""
