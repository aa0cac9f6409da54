//! Test kit: conformance suites, real servers, fixtures.
