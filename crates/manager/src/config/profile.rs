//! Profiles: which settings apply where.

/// The profile where `ENVIRONMENT` is not set.
pub(crate) const DEFAULT: &str = "development";

/// The profiles that are known by name; others are allowed.
pub(crate) const KNOWN: [&str; 3] = [DEFAULT, "staging", PRODUCTION];

/// The profile in which insecure settings are pointed out.
pub(crate) const PRODUCTION: &str = "production";
