"""The InferenceServer resource: pydantic models and the one table of rules behind CRD and file checks."""
