use std::time::Duration;

use trunkline_core::{Clock, ManualClock, Timestamp};

#[test]
fn times_are_shown_and_read_as_rfc_3339() {
    let at: Timestamp = "2025-01-09T11:30:00.250+01:00".parse().unwrap();
    assert_eq!(at.to_string(), "2025-01-09T10:30:00.25Z");
    assert_eq!(at.to_seconds().to_string(), "2025-01-09T10:30:00Z");
    assert_eq!(Timestamp::from_unix_micros(at.unix_micros()), at);
    assert!("yesterday".parse::<Timestamp>().is_err());
    let json = serde_json::to_string(&at).unwrap();
    assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), at);
}

#[test]
fn spans_between_times_never_go_below_zero_or_overflow() {
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    clock.advance(Duration::from_secs(5));
    assert_eq!(
        clock.now().since(Timestamp::UNIX_EPOCH),
        Duration::from_secs(5)
    );
    assert_eq!(Timestamp::UNIX_EPOCH.since(clock.now()), Duration::ZERO);
    let end = Timestamp::UNIX_EPOCH.after(Duration::MAX);
    assert_eq!(end.after(Duration::MAX), end);
    clock.set(Timestamp::UNIX_EPOCH);
    assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
}
