"""The REST API: the only room with FastAPI and Ray Serve. Routes call one method of the service each."""
