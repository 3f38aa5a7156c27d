"""What it costs, as ratios measured in one run: `make bench`. Machines are noisy; single times say little."""
