"""Ways to run the reaper inside what a host has anyway. Each module needs its own library, and says which."""
