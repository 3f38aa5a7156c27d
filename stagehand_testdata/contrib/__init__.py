"""What a host may have beside Django: task queues that run the reaper, Clerk. Each says what it needs."""
