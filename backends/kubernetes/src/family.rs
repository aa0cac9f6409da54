//! One family of addresses for each namespace of a service: where clusters have both, every pod has an endpoint of each.

use std::collections::BTreeMap;

use trunkline_discovery::InstanceStatus;

use crate::config::IpFamily;
use crate::endpoints::status;
use crate::message::{AddressType, EndpointSlice};

/// What was chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Families(BTreeMap<String, Choice>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Choice {
    family: AddressType,
    v4: Count,
    v6: Count,
}

/// How many endpoints there are, the more important ones first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Count {
    up: usize,
    draining: usize,
    all: usize,
}

impl Families {
    /// Chooses among slices that can be called.
    pub(crate) fn of<'a>(
        ip: IpFamily,
        slices: impl Iterator<Item = &'a EndpointSlice> + Clone,
    ) -> Self {
        let mut counts: BTreeMap<String, [BTreeMap<&str, InstanceStatus>; 2]> = BTreeMap::new();
        for slice in slices {
            let at = match slice.address_type {
                AddressType::V4 => 0,
                AddressType::V6 => 1,
                AddressType::Other => continue,
            };
            let families = counts.entry(slice.metadata.namespace.clone());
            let Some(known) = families.or_default().get_mut(at) else {
                continue;
            };
            for endpoint in &slice.endpoints {
                if let Some(address) = endpoint.addresses.first() {
                    // In two slices of one family it is counted once, as what it is in one of them.
                    known.insert(address, status(&endpoint.conditions));
                }
            }
        }
        let chosen = counts.into_iter().map(|(namespace, [v4, v6])| {
            let (v4, v6) = (Count::of(&v4), Count::of(&v6));
            let family = match ip {
                IpFamily::Auto if v6 > v4 => AddressType::V6,
                IpFamily::Auto | IpFamily::V4 => AddressType::V4,
                IpFamily::V6 => AddressType::V6,
            };
            (namespace, Choice { family, v4, v6 })
        });
        Self(chosen.collect())
    }

    /// The family whose slices of a namespace are taken.
    pub(crate) fn takes(&self, slice: &EndpointSlice) -> bool {
        let choice = self.0.get(&slice.metadata.namespace);
        choice.is_some_and(|choice| choice.family == slice.address_type)
    }

    /// Whether another family is chosen than before although that one has somebody who is up. The slices of both are written
    /// one after the other: in between there seem to be more of one.
    pub(crate) fn leaves_some_of(&self, before: &Self) -> bool {
        self.0.iter().any(|(namespace, choice)| {
            let before = before.0.get(namespace).map(|before| before.family);
            match before.filter(|family| *family != choice.family) {
                Some(AddressType::V4) => choice.v4.up > 0,
                Some(AddressType::V6) => choice.v6.up > 0,
                Some(AddressType::Other) | None => false,
            }
        })
    }
}

impl Count {
    fn of(known: &BTreeMap<&str, InstanceStatus>) -> Self {
        let count = |wanted| known.values().filter(|status| **status == wanted).count();
        Self {
            up: count(InstanceStatus::Up),
            draining: count(InstanceStatus::Draining),
            all: known.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(family: &str, ready: &[bool]) -> Value {
        let endpoints = ready.iter().enumerate();
        let endpoints: Vec<Value> = endpoints
            .map(|(n, ready)| json!({"addresses": [format!("{family}-{n}")], "conditions": {"ready": ready}}))
            .collect();
        json!({"metadata": {"namespace": "shop"}, "addressType": family, "endpoints": endpoints})
    }

    fn chosen(ip: IpFamily, slices: &[Value]) -> (Families, Vec<AddressType>) {
        let slices: Vec<EndpointSlice> =
            serde_json::from_value(Value::Array(slices.to_vec())).unwrap();
        let families = Families::of(ip, slices.iter());
        let taken = slices.iter().filter(|slice| families.takes(slice));
        let taken = taken.map(|slice| slice.address_type).collect();
        (families, taken)
    }

    #[test]
    fn the_family_with_more_that_are_ready_is_taken() {
        use AddressType::{V4, V6};
        let auto = |v4: &[bool], v6: &[bool]| {
            chosen(IpFamily::Auto, &[slice("IPv4", v4), slice("IPv6", v6)]).1
        };
        assert_eq!(auto(&[true], &[true]), [V4]);
        assert_eq!(auto(&[true], &[true, true]), [V6]);
        assert_eq!(auto(&[true, false], &[true]), [V4]);
        assert_eq!(auto(&[], &[false]), [V6]);
        assert_eq!(auto(&[], &[]), [V4]);
        let both = [slice("IPv4", &[true]), slice("IPv6", &[true, true])];
        assert_eq!(chosen(IpFamily::V4, &both).1, [V4]);
        assert_eq!(chosen(IpFamily::V6, &both[..1]).1, []);
        assert_eq!(chosen(IpFamily::Auto, &[slice("FQDN", &[true])]).1, []);
    }

    #[test]
    fn a_family_that_is_left_while_it_works_is_told() {
        let auto = |v4: &[bool], v6: &[bool]| {
            chosen(IpFamily::Auto, &[slice("IPv4", v4), slice("IPv6", v6)]).0
        };
        let before = auto(&[true], &[true]);
        assert!(!auto(&[true], &[true]).leaves_some_of(&before));
        assert!(auto(&[true], &[true, true]).leaves_some_of(&before));
        assert!(!auto(&[false], &[true]).leaves_some_of(&before));
        assert!(!auto(&[true], &[true, true]).leaves_some_of(&Families::default()));
    }
}
