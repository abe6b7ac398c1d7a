"""The drain gate: the sidecar that holds SIGTERM back until the routers say drained."""
