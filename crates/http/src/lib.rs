//! Resilient HTTP client over hyper-util: policies, discovery, context, real connection limits.
