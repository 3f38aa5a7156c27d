"""An ordinary shop. It knows nothing of the test data app: one line of settings makes its products."""
