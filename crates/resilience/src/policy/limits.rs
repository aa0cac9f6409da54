//! Merges rate limit, adaptive concurrency and chaos.

use super::layers::Merge;
use crate::chaos::ChaosSettings;
use crate::concurrency::ConcurrencySettings;
use crate::config::PolicyConfig;
use crate::ratelimit::RateLimitSettings;

impl Merge<'_, '_> {
    pub(super) fn rate_limit(&mut self) -> Option<RateLimitSettings> {
        let built_in = RateLimitSettings::default();
        let enabled = self.optional("rate_limit.enabled", "if limit is set", |c| {
            c.rate_limit.enabled
        });
        let scope = self.scope_of(
            |c| c.rate_limit.limit.map(drop),
            |c| c.rate_limit.enabled.map(drop),
        );
        let limited = self.find(&|c: &PolicyConfig| c.rate_limit.limit).is_some();
        let limit = self.value("rate_limit.limit", built_in.limit, |c| c.rate_limit.limit);
        let per = self.value("rate_limit.per", built_in.per, |c| c.rate_limit.per);
        let burst = self.value("rate_limit.burst", limit, |c| c.rate_limit.burst);
        let max_wait = self.value("rate_limit.max_wait", built_in.max_wait, |c| {
            c.rate_limit.max_wait
        });
        enabled.unwrap_or(limited).then_some(RateLimitSettings {
            limit,
            per,
            burst,
            max_wait,
            scope,
        })
    }

    pub(super) fn concurrency(&mut self) -> Option<ConcurrencySettings> {
        let built_in = ConcurrencySettings::default();
        let enabled = self.optional("concurrency.enabled", "if algorithm is set", |c| {
            c.concurrency.enabled
        });
        let scope = self.scope_of(
            |c| c.concurrency.algorithm.map(drop),
            |c| c.concurrency.enabled.map(drop),
        );
        let asked = self
            .find(&|c: &PolicyConfig| c.concurrency.algorithm)
            .is_some();
        let algorithm = self.value("concurrency.algorithm", built_in.algorithm, |c| {
            c.concurrency.algorithm
        });
        let initial = self.value("concurrency.initial", built_in.initial, |c| {
            c.concurrency.initial
        });
        let min = self.value("concurrency.min", built_in.min, |c| c.concurrency.min);
        let max = self.value("concurrency.max", built_in.max, |c| c.concurrency.max);
        let tolerance = self.value("concurrency.tolerance", built_in.tolerance, |c| {
            c.concurrency.tolerance
        });
        let baseline = self.optional("concurrency.baseline", "measured", |c| {
            c.concurrency.baseline
        });
        let recheck = self.value("concurrency.recheck", built_in.recheck, |c| {
            c.concurrency.recheck
        });
        let max_latency = self.optional("concurrency.max_latency", "none", |c| {
            c.concurrency.max_latency
        });
        let [low, normal, high] = built_in.shares;
        let shares = [
            self.value("concurrency.low_percent", low, |c| {
                c.concurrency.low_percent
            }),
            self.value("concurrency.normal_percent", normal, |c| {
                c.concurrency.normal_percent
            }),
            self.value("concurrency.high_percent", high, |c| {
                c.concurrency.high_percent
            }),
        ];
        enabled.unwrap_or(asked).then_some(ConcurrencySettings {
            algorithm,
            initial,
            min,
            max,
            tolerance,
            baseline,
            recheck,
            max_latency,
            shares,
            scope,
        })
    }

    pub(super) fn chaos(&mut self) -> Option<ChaosSettings> {
        let built_in = ChaosSettings::default();
        let enabled = self.value("chaos.enabled", false, |c| c.chaos.enabled);
        // Judged where the profile is known; shown so that it can be seen who asked for it.
        self.value("chaos.allow_in_production", false, |c| {
            c.chaos.allow_in_production
        });
        let settings = ChaosSettings {
            latency_percent: self.value("chaos.latency.percent", built_in.latency_percent, |c| {
                c.chaos.latency.percent
            }),
            latency: self.value("chaos.latency.delay", built_in.latency, |c| {
                c.chaos.latency.delay
            }),
            error_percent: self.value("chaos.error.percent", built_in.error_percent, |c| {
                c.chaos.error.percent
            }),
            error: self.value("chaos.error.kind", built_in.error, |c| c.chaos.error.kind),
            abort_percent: self.value("chaos.abort.percent", built_in.abort_percent, |c| {
                c.chaos.abort.percent
            }),
            endpoints: self
                .optional("chaos.only.endpoints", "all", |c| {
                    c.chaos.only.endpoints.clone()
                })
                .unwrap_or_default()
                .into(),
            attempts: self
                .optional("chaos.only.attempts", "all", |c| {
                    c.chaos.only.attempts.clone()
                })
                .unwrap_or_default()
                .into(),
            marked: self.value("chaos.only.marked", built_in.marked, |c| {
                c.chaos.only.marked
            }),
            seed: self.optional("chaos.seed", "at random", |c| c.chaos.seed),
        };
        enabled.then_some(settings)
    }
}
