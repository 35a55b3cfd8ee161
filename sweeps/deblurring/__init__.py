"""Face deblurring: what the built-in studies bring to the platform (configs, data, learner)."""
