"""Progress: the views of long work for a terminal, a notebook and a log; `LiveView` is in `view`."""
