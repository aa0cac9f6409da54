//! `trunkline demo`.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};
use trunkline::http::HttpClient;

use crate::place::{Place, Running, eventually, keys};
use crate::upstream::Upstream;

const MEMBERS: [&str; 5] = ["gateway", "notifications", "orders", "payments", "users"];

/// A demo that runs, and where it is.
struct Demo {
    running: Running,
    shop: HttpClient,
    members: Value,
}

impl Demo {
    async fn start(place: &Place, args: &[&str]) -> Self {
        let args = [&["demo", "--output", "json"], args].concat();
        let mut running = place.start(&args);
        let mut told = running.json().await;
        assert_eq!(keys(&told), ["gateway", "members"]);
        let members = told["members"].take();
        assert_eq!(keys(&members), MEMBERS);
        assert_eq!(members["gateway"], told["gateway"]);
        let shop = HttpClient::new(told["gateway"].as_str().unwrap()).unwrap();
        Self {
            running,
            shop,
            members,
        }
    }

    async fn order(&self, body: &Value) -> (u16, Value) {
        let answer = self.shop.post("/api/v1/orders").json(body).await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        self.shop.get(path).fetch().await.unwrap()
    }

    /// The processes of its members.
    fn children(&self) -> Vec<u32> {
        let parent = self.running.id();
        let processes = std::fs::read_dir("/proc").unwrap();
        let ids = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        let children: Vec<u32> = ids.filter(|id| parent_of(*id) == Some(parent)).collect();
        assert_eq!(children.len(), MEMBERS.len(), "{children:?}");
        children
    }
}

fn parent_of(id: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn runs(id: u32) -> bool {
    let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    // Empty for one that ended and was not waited for.
    String::from_utf8_lossy(&command).contains("demo")
}

fn leftovers(place: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(place).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name.starts_with("trunkline-demo-"))
        .collect()
}

#[tokio::test]
async fn orders_are_placed_read_and_listed_until_ctrl_c() {
    let place = Place::new();
    let demo = Demo::start(&place, &["--port", "0"]).await;

    let (status, order) = demo
        .order(&json!({ "user_id": 1, "item": "book", "amount": 1999 }))
        .await;
    assert_eq!(status, 201, "{order}");
    let id = order["id"].as_str().unwrap();
    assert_eq!(demo.get(&format!("/api/v1/orders/{id}")).await, order);
    assert_eq!(demo.get("/api/v1/orders").await, json!([order]));
    let (status, problem) = demo
        .order(&json!({ "user_id": 99, "item": "book", "amount": 1 }))
        .await;
    assert_eq!((status, &problem["status"]), (404, &json!(404)));
    let (status, problem) = demo.order(&json!({ "user_id": 1, "item": "book" })).await;
    assert_eq!(status, 422);
    assert!(problem.to_string().contains("amount"), "{problem}");
    let told = eventually(async || {
        let told = demo.get("/api/v1/notifications").await;
        (told != json!([])).then_some(told)
    })
    .await;
    assert_eq!(
        (&told[0]["order_id"], &told[1]),
        (&order["id"], &Value::Null)
    );

    for member in MEMBERS {
        let url = demo.members[member].as_str().unwrap();
        let health = place.run(&["health", url, "--output", "json"]).await.done();
        assert_eq!(
            health.json::<Value>()["overall_status"],
            "healthy",
            "{member}"
        );
    }
    let metrics = demo
        .shop
        .get("/metrics")
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics.contains("http_server_request_duration_seconds"),
        "{metrics}"
    );

    let (children, dir) = (demo.children(), leftovers(place.path()));
    assert_eq!(dir.len(), 1);
    let ended = demo.running.stop(Signal::INT).await.done();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("", ""));
    assert!(!children.iter().any(|id| runs(*id)), "{children:?}");
    assert_eq!(leftovers(place.path()), [""; 0]);
}

#[tokio::test]
async fn services_listen_where_they_are_told_to() {
    let place = Place::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let chosen = format!("orders={port}");
    let demo = Demo::start(&place, &["--port", "0", "--service-port", &chosen]).await;
    assert_eq!(demo.members["orders"], format!("http://127.0.0.1:{port}"));
    demo.running.stop(Signal::INT).await.done();
    for wrong in ["orders", "orders=x", "nobody=1"] {
        place
            .run(&["demo", "--service-port", wrong])
            .await
            .refused(2, "service-port");
    }
}

#[tokio::test]
async fn a_killed_demo_leaves_nobody_behind_and_its_data_are_gone_on_with() {
    let place = Place::new();
    let taken = Upstream::talkative().await;
    let port = taken.address().port().to_string();
    let args = ["--dir", "shop", "--port", &port];
    let demo = Demo::start(&place, &args).await;
    assert_ne!(demo.members["gateway"], taken.url());
    let (status, order) = demo
        .order(&json!({ "user_id": 2, "item": "pen", "amount": 5 }))
        .await;
    assert_eq!(status, 201, "{order}");
    let children = demo.children();
    demo.running.stop(Signal::KILL).await;
    eventually(async || (!children.iter().any(|id| runs(*id))).then_some(())).await;

    let mut again = place.start(&["demo", "--dir", "shop", "--port", "0"]);
    let mut said = Vec::new();
    while !said
        .iter()
        .any(|line: &String| line.contains("trunkline subscribe"))
    {
        said.push(again.line().await);
    }
    let said = said.join("\n");
    for line in [
        "The system runs. Ctrl-C stops it.",
        "/api/v1/orders -H",
        "trunkline services list",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let gateway = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("gateway"));
    let shop = HttpClient::new(gateway.unwrap().trim()).unwrap();
    let orders: Value = shop.get("/api/v1/orders").fetch().await.unwrap();
    assert_eq!(orders, json!([order]));
    again.stop(Signal::TERM).await.done();
    assert!(place.path().join("shop").is_dir());
}

#[tokio::test]
async fn the_scenario_holds() {
    let place = Place::new();
    let args = [
        "demo", "--check", "--orders", "50", "--port", "0", "--output", "json",
    ];
    let report: Value = place.run(&args).await.done().json();
    assert_eq!(keys(&report), ["held", "steps"]);
    assert_eq!(report["held"], true);
    let steps = report["steps"].as_array().unwrap();
    assert!(steps.len() >= 8, "{report}");
    for step in steps {
        assert_eq!(keys(step), ["held", "seconds", "seen", "step"]);
        assert_eq!(step["held"], true, "{step}");
    }
    assert_eq!(leftovers(place.path()), [""; 0]);
}
