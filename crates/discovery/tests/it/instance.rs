//! What an instance is called and what it may tell.

use proptest::prelude::*;
use trunkline_core::ErrorKind;
use trunkline_discovery::{ServiceInstance, ServiceName};

use crate::balance::{instance, name};

#[test]
fn names_that_differ_in_case_and_underscores_are_one() {
    let plain = ServiceName::new("user-service").unwrap();
    for written in ["user_service", "User-Service", "USER_SERVICE"] {
        assert_eq!(ServiceName::new(written).unwrap(), plain);
    }
    for wrong in ["", "a b", "käse", "a/b", &"x".repeat(129)] {
        assert_eq!(
            ServiceName::new(wrong).unwrap_err().kind(),
            ErrorKind::Invalid,
            "{wrong}"
        );
    }
}

#[test]
fn addresses_of_both_families_become_urls() {
    let v6 = ServiceInstance::new(name(), "::1", 80).with_protocol("https");
    assert_eq!(v6.base_url(), "https://[::1]:80");
    assert_eq!(instance("a").base_url(), "http://a.test:80");
}

#[test]
fn what_is_unsound_is_refused_and_named() {
    let cases = [
        (instance("a").with_id(""), "id"),
        (instance("a").with_id("x".repeat(257)), "id"),
        (instance("a").with_id("a\nb"), "id"),
        (ServiceInstance::new(name(), "", 1), "host"),
        (ServiceInstance::new(name(), "http://x", 1), "host"),
        (ServiceInstance::new(name(), "[::1]", 1), "host"),
        (ServiceInstance::new(name(), "a b", 1), "host"),
        (ServiceInstance::new(name(), ":", 1), "host"),
        (ServiceInstance::new(name(), "a:b", 1), "host"),
        (ServiceInstance::new(name(), "x", 0), "port"),
        (instance("a").with_protocol(""), "protocol"),
        (
            instance("a").with_health_check_path("health"),
            "health check path",
        ),
        (
            instance("a").with_metadata("k", "v".repeat(17_000)),
            "metadata",
        ),
        (
            (0..65).fold(instance("a"), |it, n| it.with_metadata(n.to_string(), "")),
            "metadata",
        ),
        (instance("a").with_zone("z".repeat(129)), "zone"),
    ];
    for host in ["::1", "2001:db8::7", "fe80::1%eth0"] {
        ServiceInstance::new(name(), host, 1).validate().unwrap();
    }
    for (instance, part) in cases {
        let error = instance.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}

proptest! {
    #[test]
    fn an_instance_survives_json(
        host in "[a-z0-9.]{1,20}",
        port in 1_u16..,
        weight: u32,
        version in ".{0,20}",
        pairs in prop::collection::btree_map(".{0,10}", ".{0,10}", 0..5),
    ) {
        let mut before = ServiceInstance::new(name(), host, port).with_weight(weight).with_version(version);
        before.metadata = pairs;
        let text = serde_json::to_string(&before).unwrap();
        let after: ServiceInstance = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(before, after);
    }
}
