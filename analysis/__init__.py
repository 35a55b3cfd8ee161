"""Tables and reports, rebuilt from the tracking store alone."""
