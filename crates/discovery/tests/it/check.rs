//! Active checks take instances out of rotation and bring them back.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_core::{Error, ErrorKind, Result};
use trunkline_discovery::{
    CheckKind, Discovery, DiscoveryBuilder, DiscoveryCacheConfig, HealthCheckConfig,
    InstanceStatus, MemoryRegistry, PickRequest, Probe, Registry, ServiceConfig,
    ServiceDiscoveryConfig, ServiceInstance, ServiceName,
};

use crate::balance::{instance, name};
use crate::scripted::Scripted;

/// A probe that answers as told, and counts.
#[derive(Clone, Default)]
pub(crate) struct Scripts(Arc<Mutex<Told>>);

#[derive(Default)]
pub(crate) struct Told {
    pub(crate) ill: HashSet<String>,
    pub(crate) hangs: HashSet<String>,
    /// Those that answer that they are not well.
    pub(crate) says_so: HashSet<String>,
    panics: HashSet<String>,
    asked: HashMap<String, u32>,
    under_way: usize,
    most_under_way: usize,
    /// Hosts where whoever is asked says that he is ill.
    pub(crate) ill_places: HashSet<String>,
}

impl Scripts {
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.0.lock().unwrap());
    }

    pub(crate) fn asked(&self, id: &str) -> u32 {
        self.0.lock().unwrap().asked.get(id).copied().unwrap_or(0)
    }
}

impl Probe for Scripts {
    async fn probe(&self, instance: &ServiceInstance) -> Result<()> {
        let (ill, hangs, panics, says_so) = {
            let mut told = self.0.lock().unwrap();
            *told.asked.entry(instance.id.clone()).or_default() += 1;
            told.under_way += 1;
            told.most_under_way = told.most_under_way.max(told.under_way);
            let is = |set: &HashSet<String>| set.contains(&instance.id);
            let ill = is(&told.ill) || told.ill_places.contains(&instance.host);
            (ill, is(&told.hangs), is(&told.panics), is(&told.says_so))
        };
        sleep(Duration::from_millis(10)).await;
        self.0.lock().unwrap().under_way -= 1;
        assert!(!panics, "told to");
        if hangs {
            std::future::pending::<()>().await;
        }
        if says_so {
            return Err(Error::unavailable("503").with_origin(trunkline_core::Origin::Remote));
        }
        if ill {
            Err(Error::unavailable("broken off"))
        } else {
            Ok(())
        }
    }
}

pub(crate) struct Setup {
    pub(crate) probe: Scripts,
    pub(crate) registry: Scripted,
    pub(crate) discovery: Discovery,
}

impl Setup {
    /// Checks begin when they are asked for.
    pub(crate) async fn of(instances: Vec<ServiceInstance>) -> Self {
        let mut off = HealthCheckConfig::default();
        off.enabled = false;
        Self::with(instances, |discovery| discovery.health_check(off)).await
    }

    pub(crate) async fn with(
        instances: Vec<ServiceInstance>,
        settings: impl FnOnce(DiscoveryBuilder) -> DiscoveryBuilder,
    ) -> Self {
        let (probe, registry) = (Scripts::default(), Scripted::with(instances));
        let builder = Discovery::builder()
            .resolver(registry.clone())
            .probe(probe.clone());
        let discovery = settings(builder).build();
        discovery.discover_services(&name()).await.unwrap();
        Self {
            probe,
            registry,
            discovery,
        }
    }

    pub(crate) fn in_rotation(&self) -> Vec<String> {
        let set = self.discovery.instances(&name()).snapshot();
        set.in_rotation()
            .map(|instance| instance.id.clone())
            .collect()
    }
}

pub(crate) fn three() -> Vec<ServiceInstance> {
    ["a", "b", "c"].map(instance).into()
}

#[tokio::test(start_paused = true)]
async fn nobody_is_checked_when_checks_are_switched_off() {
    let setup = Setup::of(three()).await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(setup.probe.asked("a"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_is_checked_as_configured_once_it_is_asked_for() {
    let check = HealthCheckConfig::default()
        .with_interval(Duration::from_secs(2))
        .with_failure_threshold(2);
    let config = ServiceDiscoveryConfig::default().with_health_check(check);
    let setup = Setup::with(three(), |discovery| discovery.config(&config)).await;
    setup.probe.tell(|told| {
        told.ill.insert("b".into());
    });
    sleep(Duration::from_secs(6)).await;
    assert_eq!(setup.in_rotation(), ["a", "c"]);
    let health = setup.discovery.service_health(&name()).await.unwrap();
    assert!(health.instances[1].check.as_ref().unwrap().failures >= 2);
    setup.probe.tell(|told| told.ill.clear());
    sleep(Duration::from_secs(3)).await;
    assert_eq!(setup.in_rotation().len(), 3);
    let asked = setup.probe.asked("a");
    assert!(
        (3..=6).contains(&asked),
        "{asked} in 9 s: checked once, not twice"
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_failed_comes_back_after_enough_good_checks_in_a_row() {
    let check = HealthCheckConfig::default()
        .with_interval(Duration::from_secs(10))
        .with_failure_threshold(1)
        .with_success_threshold(3);
    let setup = Setup::with(three(), |discovery| discovery.health_check(check)).await;
    let ill = |is: bool| {
        setup.probe.tell(|told| {
            told.ill.clear();
            told.ill.extend(is.then(|| "b".to_owned()));
        });
    };
    ill(true);
    sleep(Duration::from_secs(12)).await;
    assert_eq!(setup.in_rotation(), ["a", "c"]);
    // Two good ones, and a failure between them and the next.
    let since = |asked| setup.probe.asked("b") - asked;
    for good in [2, 3] {
        ill(false);
        let asked = setup.probe.asked("b");
        while since(asked) < good {
            assert_eq!(setup.in_rotation(), ["a", "c"]);
            sleep(Duration::from_millis(100)).await;
        }
        sleep(Duration::from_millis(100)).await;
        if good == 2 {
            assert_eq!(setup.in_rotation(), ["a", "c"]);
            ill(true);
            sleep(Duration::from_secs(12)).await;
        }
    }
    assert_eq!(setup.in_rotation(), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_for_a_path_that_it_does_not_have() {
    let without = instance("a").with_health_check_path("");
    let setup = Setup::with(vec![without.clone(), instance("b")], |it| it).await;
    let ids = ["a", "b"].map(str::to_owned);
    setup.probe.tell(|told| told.ill.extend(ids));
    sleep(Duration::from_secs(200)).await;
    assert_eq!(setup.in_rotation(), ["a"]);
    assert!(setup.discovery.health_check_service(&name()).await.unwrap());
    assert_eq!(setup.probe.asked("a"), 0);

    let taken_back = instance("b").with_health_check_path("");
    setup.registry.change(vec![without, taken_back]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        setup.in_rotation(),
        ["a", "b"],
        "the checks it failed no longer count"
    );
}

#[tokio::test(start_paused = true)]
async fn a_configured_host_is_checked_only_where_a_path_is_configured() {
    let mut checked = ServiceConfig::at("stock.test", 80);
    checked.health_check_path = Some("/ready".to_owned());
    let services = [
        ("payments", ServiceConfig::at("payments.test", 80)),
        ("stock", checked),
    ];
    let setup = Setup::with(Vec::new(), |it| it.services(services).unwrap()).await;
    for service in ["payments", "stock"] {
        let service = ServiceName::new(service).unwrap();
        setup.discovery.service_instance(&service).await.unwrap();
    }
    sleep(Duration::from_secs(100)).await;
    assert_eq!(setup.probe.asked("payments-payments.test:80"), 0);
    assert!(setup.probe.asked("stock-stock.test:80") >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_nobody_uses_is_not_checked_for_ever() {
    let mut cache = DiscoveryCacheConfig::default();
    cache.idle_expiry = Duration::from_secs(60);
    for held in [false, true] {
        let setup = Setup::with(three(), |it| it.cache(cache.clone())).await;
        let hold = held.then(|| setup.discovery.instances(&name()));
        sleep(Duration::from_secs(200)).await;
        let before = setup.probe.asked("a");
        assert!(before >= 1);
        sleep(Duration::from_secs(300)).await;
        assert_eq!(setup.probe.asked("a"), before);
        assert_eq!(setup.discovery.cached_services(), usize::from(held));
        match &hold {
            Some(instances) => drop(instances.pick(&PickRequest::any())),
            None => drop(setup.discovery.discover_services(&name()).await),
        }
        sleep(Duration::from_secs(40)).await;
        assert!(setup.probe.asked("a") > before, "used again, checked again");
    }
}

#[tokio::test(start_paused = true)]
async fn asking_for_the_health_of_all_services_begins_no_checks() {
    let mut payments = ServiceConfig::at("payments.test", 80);
    payments.health_check_path = Some("/health".to_owned());
    let setup = Setup::with(three(), |it| it.services([("payments", payments)]).unwrap()).await;
    setup.discovery.all_service_health().await.unwrap();
    sleep(Duration::from_secs(100)).await;
    assert_eq!(setup.probe.asked("payments-payments.test:80"), 0);
    let service = ServiceName::new("payments").unwrap();
    setup.discovery.service_instance(&service).await.unwrap();
    sleep(Duration::from_secs(100)).await;
    assert!(setup.probe.asked("payments-payments.test:80") > 0);
}

#[tokio::test(start_paused = true)]
async fn a_check_on_demand_takes_no_longer_than_configured() {
    let check = HealthCheckConfig::default().with_timeout(Duration::from_millis(300));
    let setup = Setup::with(three(), |it| it.health_check(check)).await;
    let ids = ["a", "b", "c"].map(str::to_owned);
    setup.probe.tell(|told| told.hangs.extend(ids));
    let began = Instant::now();
    assert!(!setup.discovery.health_check_service(&name()).await.unwrap());
    assert_eq!(began.elapsed(), Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn checks_that_the_configuration_began_can_be_stopped() {
    let setup = Setup::with(three(), |it| it).await;
    setup.probe.tell(|told| {
        told.ill.insert("b".into());
    });
    sleep(Duration::from_secs(150)).await;
    assert_eq!(setup.in_rotation().len(), 2);
    assert!(setup.discovery.stop_checks(&name()));
    assert_eq!(setup.in_rotation().len(), 3);
    let before = setup.probe.asked("b");
    sleep(Duration::from_secs(100)).await;
    setup.discovery.discover_services(&name()).await.unwrap();
    sleep(Duration::from_secs(100)).await;
    assert_eq!(setup.probe.asked("b"), before);
}

#[tokio::test(start_paused = true)]
async fn failed_checks_take_an_instance_out_and_one_good_check_brings_it_back() {
    let setup = Setup::of(three()).await;
    setup.probe.tell(|told| {
        told.ill.insert("b".into());
    });
    setup
        .discovery
        .start_checks(&name(), &HealthCheckConfig::default())
        .unwrap();
    while setup.probe.asked("b") < 2 {
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_millis(500)).await;
    assert_eq!(setup.in_rotation().len(), 3, "two failures are not three");
    while setup.probe.asked("b") < 3 {
        sleep(Duration::from_millis(100)).await;
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(
        setup.in_rotation(),
        ["a", "c"],
        "the third takes it out at that moment"
    );
    for _ in 0..100 {
        let instances = setup.discovery.instances(&name());
        assert_ne!(
            instances.pick(&PickRequest::any()).unwrap().instance().id,
            "b"
        );
    }
    setup.probe.tell(|told| told.ill.clear());
    sleep(Duration::from_secs(34)).await;
    assert_eq!(setup.in_rotation().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn checks_come_in_the_interval_and_not_all_at_once() {
    let many: Vec<_> = (0..100).map(|n| instance(&format!("i{n}"))).collect();
    let setup = Setup::of(many).await;
    setup
        .discovery
        .start_checks(&name(), &HealthCheckConfig::default())
        .unwrap();
    sleep(Duration::from_secs(300)).await;
    for n in 0..100 {
        let asked = setup.probe.asked(&format!("i{n}"));
        assert!((9..=12).contains(&asked), "i{n}: {asked} in ten intervals");
    }
    setup
        .probe
        .tell(|told| assert!(told.most_under_way <= 16, "{}", told.most_under_way));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_in_time_or_panics_has_failed() {
    let setup = Setup::of(three()).await;
    setup.probe.tell(|told| {
        told.hangs.insert("a".into());
        told.panics.insert("b".into());
    });
    let config = HealthCheckConfig::default().with_failure_threshold(1);
    setup.discovery.start_checks(&name(), &config).unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(setup.in_rotation(), ["c"]);
    let health = setup.discovery.service_health(&name()).await.unwrap();
    let errors: Vec<_> = health
        .instances
        .iter()
        .map(|known| known.check.as_ref().and_then(|check| check.error.clone()))
        .collect();
    assert!(
        errors[0]
            .as_ref()
            .unwrap()
            .contains("no answer to the health check within 5s")
    );
    assert!(errors[1].as_ref().unwrap().contains("panicked"));
    assert_eq!(errors[2], None);
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_all_are_used() {
    let setup = Setup::of(three()).await;
    let ids = ["a", "b", "c"].map(str::to_owned);
    setup.probe.tell(|told| told.ill.extend(ids));
    let config = HealthCheckConfig::default().with_failure_threshold(1);
    setup.discovery.start_checks(&name(), &config).unwrap();
    sleep(Duration::from_secs(10)).await;
    let set = setup.discovery.instances(&name()).snapshot();
    assert!(set.is_panicking());
    assert!(!set.is_healthy());
    assert_eq!(setup.in_rotation().len(), 3);
    setup.probe.tell(|told| {
        told.ill.remove("c");
    });
    sleep(Duration::from_secs(40)).await;
    assert_eq!(setup.in_rotation(), ["c"]);
}

#[tokio::test(start_paused = true)]
async fn checks_follow_the_instances() {
    let setup = Setup::of(three()).await;
    setup
        .discovery
        .start_checks(&name(), &HealthCheckConfig::default())
        .unwrap();
    sleep(Duration::from_secs(10)).await;
    setup.registry.change(vec![instance("c"), instance("d")]);
    sleep(Duration::from_secs(100)).await;
    assert!(setup.probe.asked("d") >= 3);
    let before = setup.probe.asked("a");
    sleep(Duration::from_secs(100)).await;
    assert_eq!(setup.probe.asked("a"), before, "who is gone is left alone");
    assert_eq!(
        setup.registry.watches_open(),
        1,
        "a service that is checked is watched"
    );
}

#[tokio::test(start_paused = true)]
async fn stopping_brings_everybody_back() {
    let setup = Setup::of(three()).await;
    setup.probe.tell(|told| {
        told.ill.insert("b".into());
    });
    let config = HealthCheckConfig::default().with_failure_threshold(1);
    setup.discovery.start_checks(&name(), &config).unwrap();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(setup.in_rotation().len(), 2);
    assert!(setup.discovery.stop_checks(&name()));
    assert!(!setup.discovery.stop_checks(&name()));
    assert_eq!(setup.in_rotation().len(), 3);
    let before = setup.probe.asked("b");
    sleep(Duration::from_secs(100)).await;
    assert_eq!(setup.probe.asked("b"), before);
}

#[tokio::test(start_paused = true)]
async fn checks_that_are_switched_off_or_impossible_are_not_begun() {
    let setup = Setup::of(three()).await;
    let mut off = HealthCheckConfig::default();
    off.enabled = false;
    setup.discovery.start_checks(&name(), &off).unwrap();
    sleep(Duration::from_secs(100)).await;
    assert_eq!(setup.probe.asked("a"), 0);
    let without = Discovery::builder()
        .resolver(setup.registry.clone())
        .build();
    let error = without
        .start_checks(&name(), &HealthCheckConfig::default())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn a_service_is_healthy_when_one_of_its_instances_is() {
    let setup = Setup::of(three()).await;
    setup
        .probe
        .tell(|told| told.ill.extend(["a".into(), "b".into()]));
    assert!(setup.discovery.health_check_service(&name()).await.unwrap());
    setup.probe.tell(|told| {
        told.ill.insert("c".into());
    });
    assert!(!setup.discovery.health_check_service(&name()).await.unwrap());
    assert_eq!(setup.in_rotation().len(), 3, "asking once takes nobody out");
    setup.registry.change(vec![]);
    sleep(Duration::from_millis(1)).await;
    assert!(!setup.discovery.health_check_service(&name()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn without_a_probe_their_own_word_counts() {
    let registry = MemoryRegistry::new();
    let ttl = Duration::from_secs(1000);
    let discovery = Discovery::builder().resolver(registry.clone()).build();
    let down = instance("a").with_status(InstanceStatus::Down);
    let lease = registry.register(down.clone(), ttl).await.unwrap();
    assert!(!discovery.health_check_service(&name()).await.unwrap());
    registry
        .renew(&lease, &down.with_status(InstanceStatus::Up))
        .await
        .unwrap();
    sleep(Duration::from_millis(1)).await;
    assert!(discovery.health_check_service(&name()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_health_of_all_services_begins_no_watch() {
    let registry = MemoryRegistry::new();
    let ttl = Duration::from_secs(1000);
    let discovery = Discovery::builder().resolver(registry.clone()).build();
    let orders = ServiceName::new("orders").unwrap();
    let ill = ServiceInstance::new(orders.clone(), "x", 1).with_status(InstanceStatus::Down);
    registry.register(ill, ttl).await.unwrap();
    registry.register(instance("a"), ttl).await.unwrap();
    let external = ServiceName::new("payments").unwrap();
    discovery
        .register_external_service(ServiceInstance::new(external.clone(), "y", 1))
        .unwrap();
    let all = discovery.all_service_health().await.unwrap();
    let healthy: Vec<_> = all
        .iter()
        .map(|(name, health)| (name.as_str(), health.is_healthy()))
        .collect();
    assert_eq!(
        healthy,
        [("orders", false), ("payments", true), ("users", true)]
    );
    assert!(
        discovery.cached_services() <= 1,
        "only the one that was named here"
    );
}

#[tokio::test(start_paused = true)]
async fn a_callback_hears_when_a_service_is_lost_and_when_it_recovers() {
    let setup = Setup::of(three()).await;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&heard);
    setup.discovery.on_service_health_change(move |change| {
        let sink = Arc::clone(&sink);
        async move {
            sink.lock()
                .unwrap()
                .push((change.service.to_string(), change.healthy));
            assert!(
                change.healthy,
                "a callback that panics is called again all the same"
            );
        }
    });
    let ids = ["a", "b", "c"].map(str::to_owned);
    setup.probe.tell(|told| told.ill.extend(ids));
    let config = HealthCheckConfig::default().with_failure_threshold(1);
    setup.discovery.start_checks(&name(), &config).unwrap();
    sleep(Duration::from_secs(10)).await;
    setup.probe.tell(|told| told.ill.clear());
    sleep(Duration::from_secs(40)).await;
    setup.registry.change(vec![]);
    sleep(Duration::from_millis(1)).await;
    let users = || "users".to_owned();
    assert_eq!(
        *heard.lock().unwrap(),
        [(users(), false), (users(), true), (users(), false)]
    );
    setup
        .discovery
        .shutdown(Instant::now() + Duration::from_secs(1))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn checks_by_tcp_and_grpc_are_for_who_is_named_or_has_a_path() {
    let mut tcp = HealthCheckConfig::new(CheckKind::Tcp);
    tcp.interval = Duration::from_secs(1);
    let without = instance("a").with_health_check_path("");
    let both = vec![without, instance("b")];
    // Said of all services, it is no leave to ask who names no path.
    let all = Setup::with(both.clone(), |it| it.health_check(tcp.clone())).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(all.probe.asked("a"), 0);
    assert!(all.probe.asked("b") > 0);
    // Said of this one, it is.
    let mut service = ServiceConfig::default();
    service.instance_check = Some(tcp.clone());
    let services = [(name().as_str().to_owned(), service)];
    let one = Setup::with(both.clone(), |it| it.services(services).unwrap()).await;
    sleep(Duration::from_secs(5)).await;
    assert!(one.probe.asked("a") > 0 && one.probe.asked("b") > 0);
    // For HTTP there is nothing to ask for without a path.
    let mut service = ServiceConfig::default();
    service.instance_check = Some(HealthCheckConfig::default());
    let services = [(name().as_str().to_owned(), service)];
    let http = Setup::with(both, |it| it.services(services).unwrap()).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(http.probe.asked("a"), 0);
}
