"""Where candidates come from: stateful, incremental, never O(n) per pick."""
