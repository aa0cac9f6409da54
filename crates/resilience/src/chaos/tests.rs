use super::*;

fn always() -> ChaosSettings {
    ChaosSettings {
        latency_percent: 100.0,
        error_percent: 100.0,
        ..ChaosSettings::default()
    }
}

#[test]
fn a_share_of_calls_is_hit_and_a_seed_repeats_which() {
    let settings = ChaosSettings {
        error_percent: 20.0,
        seed: Some(7),
        ..ChaosSettings::default()
    };
    let target = Target::service("users");
    let run = || {
        let chaos = Chaos::new(settings.clone());
        let draw = |_| chaos.draw(&target, 1, false).error.is_some();
        (0..10_000).map(draw).collect::<Vec<_>>()
    };
    let first = run();
    let hits = first.iter().filter(|hit| **hit).count();
    assert!((1_800..2_200).contains(&hits), "{hits} of 10000");
    assert_eq!(first, run());
}

#[test]
fn only_what_matches_is_hit() {
    let target = Target::service("users").with_endpoint("GET /users/{id}");
    let hit = |settings: ChaosSettings, attempt, marked| {
        Chaos::new(settings).draw(&target, attempt, marked) != Plan::default()
    };
    assert!(hit(always(), 1, false));
    let endpoints = |pattern: &str| ChaosSettings {
        endpoints: [pattern.to_owned()].into(),
        ..always()
    };
    assert!(hit(endpoints("GET /users/{id}"), 1, false));
    assert!(hit(endpoints("GET *"), 1, false));
    assert!(!hit(endpoints("POST *"), 1, false));
    let attempts = ChaosSettings {
        attempts: [2].into(),
        ..always()
    };
    assert!(!hit(attempts.clone(), 1, false));
    assert!(hit(attempts, 2, false));
    let marked = ChaosSettings {
        marked: true,
        ..always()
    };
    assert!(!hit(marked.clone(), 1, false));
    assert!(hit(marked, 1, true));
}

#[test]
fn a_mark_is_on_the_context() {
    let context = Context::new();
    assert!(!Chaos::is_marked(&context));
    assert!(Chaos::is_marked(&Chaos::mark(context)));
}

#[test]
fn what_was_not_sent_has_no_answer_to_lose() {
    let settings = ChaosSettings {
        abort_percent: 100.0,
        ..always()
    };
    let plan = Chaos::new(settings).draw(&Target::service("users"), 1, false);
    assert!(plan.error.is_some() && plan.abort.is_none());
    assert_eq!(
        plan.faults().collect::<Vec<_>>(),
        [Fault::Latency, Fault::Error]
    );
}
