//! Service discovery: registry and resolver contracts, cache, balancing, health checks.
