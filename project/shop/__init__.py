"""An ordinary shop, whose tables know nothing of the test data app: managers hide what its tests make."""
