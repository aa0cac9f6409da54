//! Health that is asked for on demand takes its time and no more, however many instances and callers there are.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{Context, ErrorKind};
use trunkline_discovery::ServiceInstance;

use crate::balance::{instance, name};
use crate::check::Setup;

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("i{n:04}")).collect()
}

async fn hanging(count: usize) -> Setup {
    let instances: Vec<ServiceInstance> = ids(count).iter().map(|id| instance(id)).collect();
    let setup = Setup::of(instances).await;
    setup.probe.tell(|told| told.hangs.extend(ids(count)));
    setup
}

fn asked(setup: &Setup, count: usize) -> u32 {
    ids(count).iter().map(|id| setup.probe.asked(id)).sum()
}

#[tokio::test(start_paused = true)]
async fn many_instances_that_hang_do_not_hold_a_caller_for_long() {
    let setup = hanging(1_000).await;
    let began = Instant::now();
    let answer = setup.discovery.health_check_service(&name()).await;
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(began.elapsed() <= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_no_longer_than_its_deadline() {
    let setup = hanging(3).await;
    let began = Instant::now();
    let context = Context::new().with_timeout(Duration::from_secs(2));
    let service = name();
    let answer = context
        .scope(setup.discovery.health_check_service(&service))
        .await;
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(began.elapsed(), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn those_who_ask_at_the_same_time_share_one_round() {
    let setup = hanging(3).await;
    let service = name();
    let all = (0..50).map(|_| setup.discovery.health_check_service(&service));
    let answers = futures_util::future::join_all(all).await;
    assert!(answers.iter().all(|answer| !answer.as_ref().unwrap()));
    assert_eq!(asked(&setup, 3), 3);
    // Who comes later is told how it is then.
    setup.probe.tell(|told| told.hangs.clear());
    assert!(
        setup
            .discovery
            .health_check_service(&service)
            .await
            .unwrap()
    );
    assert!(asked(&setup, 3) > 3);
}

#[tokio::test(start_paused = true)]
async fn a_round_goes_on_when_the_one_who_began_it_leaves() {
    let setup = hanging(3).await;
    let service = name();
    let hurried = tokio::time::timeout(
        Duration::from_secs(1),
        setup.discovery.health_check_service(&service),
    );
    let patient = setup.discovery.health_check_service(&service);
    let (hurried, patient) = tokio::join!(hurried, patient);
    assert!(hurried.is_err());
    assert!(!patient.unwrap());
    assert_eq!(asked(&setup, 3), 3);
}
