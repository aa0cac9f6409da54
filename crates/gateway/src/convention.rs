//! Which path belongs to a service that has no route of its own.

use trunkline_discovery::ServiceName;

/// The path segment of a service by convention: the name without `-service`, in the plural.
///
/// ```
/// use trunkline_discovery::ServiceName;
/// use trunkline_gateway::segment_of;
///
/// assert_eq!(segment_of(&ServiceName::new("user-service")?), "users");
/// assert_eq!(segment_of(&ServiceName::new("inventory-service")?), "inventories");
/// assert_eq!(segment_of(&ServiceName::new("payments")?), "payments");
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[must_use]
pub fn segment_of(service: &ServiceName) -> String {
    let name = service.as_str();
    let stem = name
        .strip_suffix("-service")
        .filter(|stem| !stem.is_empty())
        .unwrap_or(name);
    if stem.ends_with('s') {
        return stem.to_owned();
    }
    match stem.strip_suffix('y') {
        Some(rest) if rest.ends_with(is_consonant) => format!("{rest}ies"),
        _ => format!("{stem}s"),
    }
}

fn is_consonant(letter: char) -> bool {
    letter.is_ascii_alphabetic() && !"aeiou".contains(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x42_names_become_plural_segments() {
        for (service, segment) in [
            ("user-service", "users"),
            ("order-service", "orders"),
            ("payment-service", "payments"),
            ("category-service", "categories"),
            ("key-service", "keys"),
            ("news-service", "news"),
            ("billing", "billings"),
            ("y", "ys"),
        ] {
            assert_eq!(
                segment_of(&ServiceName::new(service).unwrap()),
                segment,
                "{service}"
            );
        }
    }
}
