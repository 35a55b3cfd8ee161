"""Networks, losses and quality metrics for image restoration: plain torch, no data, no engine."""
