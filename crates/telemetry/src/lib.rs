//! Logs and metrics of Trunkline: structured logs, run-time levels, a per-manager registry.
