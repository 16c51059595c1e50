"""The REST API: the only package with FastAPI and Ray Serve. Each route calls one method of the service."""
