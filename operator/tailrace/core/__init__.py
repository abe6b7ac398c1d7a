"""The pure core: decisions about endpoints, attempts and drains. No I/O, no clock, no randomness of its own."""
