//! Timeout, retry with budget, circuit breaker, bulkhead and fallback: alone, as tower layers, from configuration.
