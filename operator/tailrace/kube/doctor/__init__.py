"""What `tailrace doctor` knows of a cluster and what it makes of it: `reading` asks, all other files are pure."""
