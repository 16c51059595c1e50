"""Live: what people see of a training while it goes on; `LiveView` is in `view`."""
