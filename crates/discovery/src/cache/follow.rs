//! Keeps one service current: list, then watch, then list again whenever something may have been missed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Fuse, FusedFuture as _};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use trunkline_core::task::catch_panic;
use trunkline_core::{Error, ErrorKind, Result};

use super::{Cache, Snapshot};
use crate::backoff::Backoff;
use crate::config::DiscoveryCacheConfig;
use crate::erased::AnyResolver;
use crate::instance::ServiceName;
use crate::instances::Pool;
use crate::pulse::{Heard, Listener, spread};
use crate::report::{Reporter, Weight};
use crate::resolver::{InstanceList, InstanceWatch, Resolver};

/// Longest wait before a registry that is away is asked again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// After so long without a first answer what was known last is used meanwhile: before nobody used the service, or on disk.
const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// A watch that lasted this long has worked; one that broke earlier makes the next wait longer.
const HAS_WORKED: Duration = LONGEST_WAIT;

/// The task that keeps one service current.
pub(super) struct Follow {
    pub(super) cache: Weak<Cache>,
    pub(super) resolver: AnyResolver,
    pub(super) service: ServiceName,
    pub(super) pool: Arc<Pool>,
    pub(super) config: DiscoveryCacheConfig,
    pub(super) request_timeout: Duration,
    pub(super) reporter: Reporter,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// Ends the watch of this service.
    pub(super) stop: CancellationToken,
    /// Ends everything.
    pub(super) shutdown: CancellationToken,
}

/// Why a watch is no longer followed.
enum Ended {
    /// It broke, or what it says can no longer be trusted.
    Broken(Error),
    /// The registry was silent and is back: what it said meanwhile may be lost.
    Missed,
    /// Nobody used the service for long.
    Unused,
}

impl Follow {
    /// Runs until it is stopped or the service is forgotten. The pulse tells when the registry falls silent, and when it is
    /// back.
    pub(super) async fn run(self, mut pulse: Listener) {
        let stop = self.stop.clone();
        // Every await within is cancel safe: nothing is half done when it stops.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.keep_current(&mut pulse) => {}
        }
        self.pool.go_by_what_is_known();
        if self.shutdown.is_cancelled() {
            self.pool.end(&Error::cancelled("discovery was shut down"));
        }
        self.reporter.forget(self.service.as_str());
    }

    async fn keep_current(&self, pulse: &mut Listener) {
        let mut backoff = Backoff::new(LONGEST_WAIT);
        loop {
            let begun = Instant::now();
            let Some(opened) = self.open_while_it_answers(pulse).await else {
                continue;
            };
            let ended = match opened {
                Ok(watch) => self.follow(watch, pulse).await,
                Err(error) => Ended::Broken(error),
            };
            match ended {
                Ended::Unused if self.sleep_until_used().await => {}
                Ended::Unused => return,
                Ended::Missed => {
                    backoff.reset();
                    spread().await;
                }
                Ended::Broken(error) => {
                    self.failed(&error);
                    pulse.ask_now();
                    if error.kind() == ErrorKind::Cancelled {
                        // The registry was shut down in this process: it will not come back.
                        self.pool.end(&error);
                        return;
                    }
                    if begun.elapsed() >= HAS_WORKED {
                        backoff.reset();
                    }
                    tokio::select! {
                        () = sleep(backoff.next()) => {}
                        () = pulse.back() => backoff.reset(),
                    }
                }
            }
        }
    }

    /// Opens a watch; nothing when the registry was silent meanwhile and is back: what was asked before may never be
    /// answered.
    async fn open_while_it_answers(&self, pulse: &mut Listener) -> Option<Result<InstanceWatch>> {
        let mut opening = std::pin::pin!(self.open());
        loop {
            tokio::select! {
                opened = &mut opening => {
                    if opened.is_ok() {
                        pulse.answers();
                    }
                    return Some(opened);
                }
                heard = pulse.next() => match heard {
                    Heard::Silent(error) => self.failed(&error),
                    Heard::Back => {
                        spread().await;
                        return None;
                    }
                },
            }
        }
    }

    /// Opens a watch and takes its first list, both within the time allowed.
    async fn open(&self) -> Result<InstanceWatch> {
        let begun = Instant::now();
        let answer = timeout(self.request_timeout, async {
            let mut watch = self.resolver.watch(&self.service).await?;
            let first = next(&mut watch).await;
            let first =
                first.unwrap_or_else(|| Err(Error::unavailable("the watch ended at once")))?;
            Ok((watch, first))
        });
        let mut answer = std::pin::pin!(answer);
        let answer = tokio::select! {
            answer = &mut answer => answer,
            () = sleep(FIRST_ANSWER) => {
                self.remember(&self.too_slow());
                self.pool.go_by_what_is_known();
                answer.await
            }
        };
        let answer = answer.unwrap_or_else(|_| Err(self.too_slow()));
        self.pool
            .metrics()
            .resolved(answer.is_ok(), begun.elapsed());
        let (watch, first) = answer?;
        self.answered(first);
        Ok(watch)
    }

    /// Follows a watch until it breaks. Opening it again begins with the whole list, so nothing is missed in between.
    async fn follow(&self, mut watch: InstanceWatch, pulse: &mut Listener) -> Ended {
        let resync = self.config.resync_interval;
        // Not all services at the same moment.
        let mut resync = ticks(resync.mul_f64(0.5 + fastrand::f64() / 2.0), resync);
        let mut unused = ticks(self.config.idle_expiry, self.config.idle_expiry);
        // Beside the watch: a question that takes its time holds no news up.
        let lists = AtomicU64::new(0);
        let mut asked = std::pin::pin!(Fuse::terminated());
        let polls = self.resolver.polls();
        // How many lists the watch had told when a question failed that was asked again at once.
        let mut in_vain = None;
        loop {
            tokio::select! {
                next = next(&mut watch) => match next {
                    Some(Ok(list)) => {
                        lists.fetch_add(1, Ordering::Relaxed);
                        self.answered(list);
                        pulse.answers();
                    }
                    Some(Err(error)) => return Ended::Broken(error),
                    None => return Ended::Broken(Error::unavailable("the watch ended")),
                },
                _ = resync.tick(), if asked.is_terminated() => if polls {
                    self.is_so_still();
                } else {
                    asked.set(self.resync(&lists).fuse());
                },
                outcome = &mut asked => match outcome {
                    Ok(is_news) => {
                        pulse.answers();
                        in_vain = None;
                        if is_news {
                            // The watch has missed it, and may go on by what it told last: silent when that comes back.
                            return Ended::Missed;
                        }
                    }
                    // One answer that is late, while the watch may be well, is no reason to give a slow registry more to do.
                    Err(error) => {
                        pulse.ask_now();
                        let heard = lists.load(Ordering::Relaxed);
                        match in_vain.take() {
                            Some(before) if before == heard => return Ended::Broken(error),
                            Some(_) => {}
                            None => {
                                in_vain = Some(heard);
                                asked.set(self.resync(&lists).fuse());
                            }
                        }
                    }
                },
                heard = pulse.next() => match heard {
                    Heard::Silent(error) => self.failed(&error),
                    Heard::Back => return Ended::Missed,
                },
                _ = unused.tick() => if !self.pool.is_in_use() {
                    return Ended::Unused;
                },
            }
        }
    }

    /// Asks for the whole list, should the watch have missed something or be dead without saying so. Says whether it has.
    async fn resync(&self, lists: &AtomicU64) -> Result<bool> {
        let begun = Instant::now();
        let heard = lists.load(Ordering::Relaxed);
        let answer = timeout(self.request_timeout, self.resolver.resolve(&self.service)).await;
        let answer = answer.unwrap_or_else(|_| Err(self.too_slow()));
        self.pool
            .metrics()
            .resolved(answer.is_ok(), begun.elapsed());
        let list = answer?;
        // The watch may be ahead of an answer that was on its way.
        let is_news = match list.revision {
            0 => lists.load(Ordering::Relaxed) == heard,
            revision => revision >= self.pool.revision(),
        };
        Ok(is_news && self.answered(list))
    }

    /// The watch asks again and again by itself, and would have said it: what it told last is so still.
    fn is_so_still(&self) {
        let set = self.pool.peek();
        if let Some(snapshot) = self.snapshot.as_ref().filter(|_| !set.is_stale()) {
            let known: Vec<_> = set.instances().map(|it| (**it).clone()).collect();
            snapshot.note(&self.service, &known, false);
        }
    }

    /// Sleeps while nobody uses the service. Says whether somebody does again; if not, it was forgotten.
    async fn sleep_until_used(&self) -> bool {
        loop {
            match self.cache.upgrade() {
                Some(cache) if !cache.forget(&self.service, &self.pool) => {}
                _ => return false,
            }
            self.pool.mark_dormant(&self.stop);
            self.reporter.forget(self.service.as_str());
            // Somebody may have used it just before it fell asleep.
            if self.pool.is_in_use() {
                return true;
            }
            if timeout(self.config.idle_expiry, self.pool.woken())
                .await
                .is_ok()
            {
                return true;
            }
        }
    }

    /// Takes a list in. Says whether it is another one than before.
    fn answered(&self, list: InstanceList) -> bool {
        let first = !self.pool.is_resolved();
        let was_stale = self.pool.stale_for().is_some();
        let said = self.snapshot.as_ref().map(|_| list.instances.clone());
        let news = self.pool.listed(list.instances, list.revision, &self.stop);
        if news && !first {
            self.pool.metrics().changed();
        }
        if let (Some(snapshot), Some(said)) = (&self.snapshot, said) {
            snapshot.note(&self.service, &said, news);
        }
        self.reporter.works(self.service.as_str());
        if was_stale {
            self.report_ages();
        }
        news
    }

    fn report_ages(&self) {
        if let Some(cache) = self.cache.upgrade() {
            cache.report_ages();
        }
    }

    /// Takes what was known last from the disk, where nothing is known.
    fn remember(&self, error: &Error) {
        if self.pool.is_resolved() {
            return;
        }
        let saved = self.snapshot.as_ref();
        if let Some((instances, age)) = saved.and_then(|saved| saved.find(&self.service)) {
            tracing::warn!(
                target: "trunkline::discovery",
                service = %self.service, instances = instances.len(), age_seconds = age.as_secs(),
                "the registry does not answer; what it said to an earlier process is used"
            );
            self.pool.remembered(instances, age, error, &self.stop);
        }
    }

    fn failed(&self, error: &Error) {
        self.remember(error);
        self.pool.mark_stale(error, &self.stop);
        // One service that is not known yet is no reason to take a process out that has all else it needs.
        let knows = |cache: Arc<Cache>| cache.knows_any();
        let weight = if self.cache.upgrade().is_some_and(knows) {
            Weight::Degraded
        } else {
            Weight::Unhealthy
        };
        tracing::warn!(
            target: "trunkline::discovery",
            service = %self.service, registry = self.resolver.kind(), error = %error.report(),
            "the registry cannot be asked; the last known instances are used"
        );
        let told = Error::new(
            error.kind(),
            format!("cannot look up service {}: {error}", self.service),
        );
        self.reporter.failed(self.service.as_str(), weight, told);
        self.report_ages();
    }

    fn too_slow(&self) -> Error {
        let span = trunkline_core::duration::format(self.request_timeout);
        Error::timeout(format!(
            "the {} registry did not answer within {span}",
            self.resolver.kind()
        ))
    }
}

/// What a watch says next. A panic within breaks it, and nothing else. Cancel safe.
async fn next(watch: &mut InstanceWatch) -> Option<Result<InstanceList>> {
    catch_panic(watch.next())
        .await
        .unwrap_or_else(|panic| Some(Err(panic)))
}

fn ticks(first: Duration, every: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + first, every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
