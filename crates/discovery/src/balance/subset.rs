//! Calling a few of many instances.

use std::sync::Arc;

use super::load::Member;
use super::maglev::hash;

/// So many of them, chosen by the caller's number, and the others. When some come or go, few of the choices change: each
/// instance has a rank for each caller, and those that rank highest are chosen.
pub(crate) fn subset(
    members: Vec<Arc<Member>>,
    size: usize,
    caller: u64,
) -> (Vec<Arc<Member>>, Vec<Arc<Member>>) {
    if size == 0 || members.len() <= size {
        return (members, Vec::new());
    }
    let rank = |member: &Arc<Member>| hash(member.instance.id.as_bytes(), caller);
    let mut ranks: Vec<u64> = members.iter().map(rank).collect();
    ranks.sort_unstable();
    let lowest = ranks[ranks.len() - size];
    members.into_iter().partition(|it| rank(it) >= lowest)
}
