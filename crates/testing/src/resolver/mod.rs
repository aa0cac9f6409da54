//! The conformance suite of resolvers whose instances others announce: DNS, Kubernetes.
//!
//! What stands in the directory is written behind the back of who is tested, by an [`Editor`]. Implement
//! [`ResolverHarness`] and let [`resolver_conformance!`](crate::resolver_conformance) make one test of every case.

pub mod cases;
pub mod changing;
mod harness;
mod macros;
pub mod outages;

pub use harness::{
    Editor, Link, OpenBoxed, OpenResolver, Place, ResolverHarness, ResolverUnderTest, run,
};
