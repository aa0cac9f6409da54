//! Profiles: which settings apply where.

/// The profile where `ENVIRONMENT` is not set.
pub(crate) const DEFAULT: &str = "development";

/// The profiles that are known by name; others are allowed.
pub(crate) const KNOWN: [&str; 3] = [DEFAULT, "staging", PRODUCTION];

/// The profile in which insecure settings are pointed out.
pub(crate) const PRODUCTION: &str = "production";

/// Whether a profile is that of production, however it is spelt: what must not run there is refused by meaning.
pub(crate) fn is_production(profile: &str) -> bool {
    profile.eq_ignore_ascii_case(PRODUCTION) || profile.eq_ignore_ascii_case("prod")
}
