"""One module per noun; each route parses, calls one method of the service, and answers."""
