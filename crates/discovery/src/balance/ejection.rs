//! Taking an instance out because calls to it fail.

use std::time::Duration;

use tokio::time::Instant;

use crate::EjectionConfig;

/// Whether one instance is out, since when and for how long. Pure: the time is an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EjectionState {
    /// How often in a row, counted while it comes back only to fail again.
    count: u32,
    /// Until when it is out, or was out the last time.
    until: Option<Instant>,
    lasted: Duration,
    out: bool,
}

impl EjectionState {
    /// Whether it is out.
    pub(crate) fn is_out(&self) -> bool {
        self.out
    }

    /// When it may come back, while it is out.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until.filter(|_| self.out)
    }

    /// Takes it out: the base time, times how often it has been out in a row.
    pub(crate) fn eject(&mut self, config: &EjectionConfig, now: Instant) -> Duration {
        // It has proven itself when it stayed in for as long as it was out before.
        let proven = self
            .until
            .is_none_or(|until| now.saturating_duration_since(until) >= self.lasted);
        self.count = if proven {
            1
        } else {
            self.count.saturating_add(1)
        };
        self.lasted = config
            .base_time
            .saturating_mul(self.count)
            .min(config.max_time);
        self.until = now.checked_add(self.lasted);
        self.out = self.until.is_some();
        self.lasted
    }

    /// Takes it out for so long as it asked for itself. That says nothing against it.
    pub(crate) fn leave_alone(
        &mut self,
        config: &EjectionConfig,
        span: Duration,
        now: Instant,
    ) -> Duration {
        let span = span.min(config.max_time);
        self.until = now.checked_add(span);
        self.out = self.until.is_some();
        span
    }

    /// Lets it back in if its time is over. Says whether it came back.
    pub(crate) fn readmit(&mut self, now: Instant) -> bool {
        let over = self.out && self.until.is_none_or(|until| until <= now);
        if over {
            self.out = false;
        }
        over
    }
}

impl EjectionConfig {
    /// Whether one more of `usable` instances may go out when `out` are out already and `in_rotation` get requests.
    /// The share is computed as it would be afterwards, and the last one in rotation always stays.
    pub(crate) fn allows(&self, usable: usize, out: usize, in_rotation: usize) -> bool {
        let afterwards = (out + 1).saturating_mul(100);
        let share = usable.saturating_mul(usize::from(self.max_percent));
        in_rotation > 1 && (afterwards <= share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config() -> EjectionConfig {
        EjectionConfig::default()
    }

    #[test]
    fn stays_out_longer_each_time_it_comes_back_only_to_fail() {
        let (config, mut now) = (config(), Instant::now());
        let mut state = EjectionState::default();
        for times in 1..5 {
            let lasts = state.eject(&config, now);
            assert_eq!(lasts, config.base_time * times);
            assert!(!state.readmit(now + lasts - Duration::from_millis(1)));
            now += lasts;
            assert!(state.readmit(now));
            assert!(!state.readmit(now), "it is in already");
        }
    }

    #[test]
    fn begins_anew_after_it_has_proven_itself() {
        let (config, now) = (config(), Instant::now());
        let mut state = EjectionState::default();
        state.eject(&config, now);
        state.readmit(now + config.base_time);
        state.eject(&config, now + config.base_time);
        let back = now + config.base_time * 3;
        state.readmit(back);
        assert_eq!(
            state.eject(&config, back + config.base_time * 2),
            config.base_time
        );
    }

    #[test]
    fn never_longer_than_the_longest() {
        let (config, mut now) = (config(), Instant::now());
        let mut state = EjectionState::default();
        for _ in 0..1000 {
            let lasts = state.eject(&config, now);
            assert!(lasts <= config.max_time);
            now += lasts;
            state.readmit(now);
        }
    }

    proptest! {
        #[test]
        fn the_share_is_never_passed_and_one_always_stays(usable in 0_usize..200, percent in 0_u8..=100) {
            let config = EjectionConfig { max_percent: percent, ..config() };
            let mut out = 0;
            while config.allows(usable, out, usable - out) {
                out += 1;
            }
            prop_assert!(out * 100 <= usable * usize::from(percent));
            prop_assert!(usable == 0 || out < usable);
        }
    }
}
