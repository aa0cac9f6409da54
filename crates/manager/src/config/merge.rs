//! Lays one layer over another: sections key by key, everything else whole.

use indexmap::map::Entry as MapEntry;

use super::tree::{Node, Table, Value};

/// What `over` says wins; what it does not say stays. `null` takes a value back to its default.
pub(crate) fn merge(under: Node, over: Node) -> Node {
    match (under.value, over.value) {
        (Value::Table(under_table), Value::Table(over_table)) => Node {
            value: Value::Table(merge_tables(under_table, over_table)),
            place: over.place,
        },
        (_, value) => Node {
            value,
            place: over.place,
        },
    }
}

fn merge_tables(mut under: Table, over: Table) -> Table {
    for (key, entry) in over.entries {
        match under.entries.entry(key) {
            MapEntry::Vacant(free) => {
                free.insert(entry);
            }
            MapEntry::Occupied(mut taken) => {
                let lower =
                    std::mem::replace(&mut taken.get_mut().node, Node::table(entry.key.clone()));
                let node = merge(lower, entry.node);
                *taken.get_mut() = super::tree::Entry {
                    key: entry.key,
                    node,
                };
            }
        }
    }
    under
}
