//! From the name of a service to that of its records.

use hickory_resolver::proto::rr::Name;
use trunkline_core::{Error, Result};
use trunkline_discovery::ServiceName;

/// What stands for the name of the service.
pub(crate) const SERVICE: &str = "{service}";

/// The whole name, looked up as it is: no search domains.
pub(crate) fn name_of(pattern: &str, service: &ServiceName) -> Result<Name> {
    let text = pattern.replace(SERVICE, service.as_str());
    let odd = |error| Error::invalid(format!("`{text}` is no name of DNS")).with_source(error);
    let mut name = Name::from_ascii(&text).map_err(odd)?;
    name.set_fqdn(true);
    Ok(name)
}

/// What is wrong with a pattern.
pub(crate) fn problem(pattern: &str) -> Option<&'static str> {
    if !pattern.contains(SERVICE) {
        return Some("must have `{service}` where the name of the service belongs");
    }
    let sample = pattern.replace(SERVICE, "service");
    match Name::from_ascii(sample) {
        Ok(_) => None,
        Err(_) => Some("makes no name of DNS: labels have 1 to 63 bytes, a name has 255 at most"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole() {
        let users = ServiceName::new("User_Service").unwrap();
        let name = name_of("_http._tcp.{service}.shop.test", &users).unwrap();
        assert_eq!(name.to_ascii(), "_http._tcp.user-service.shop.test.");
        let long = ServiceName::new("a".repeat(64)).unwrap();
        assert!(name_of("{service}.test", &long).is_err());
    }

    #[test]
    fn patterns_are_checked() {
        assert_eq!(problem("{service}.shop.test."), None);
        assert!(problem("users.shop.test").unwrap().contains("{service}"));
        assert!(problem("{service}..test").is_some());
    }
}
