//! One connection, kept for ever: on a paused clock, with a server that does as it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use trunkline_core::{Context, Error, ErrorKind, Result, Retry};
use trunkline_messaging::supervisor::{Connect, LinkState, Reconnect, Supervisor, in_flight};

/// What the server does with attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Serves,
    Refuses,
    Hangs,
    Panics,
}

#[derive(Debug)]
struct Line {
    server: watch::Sender<Server>,
    attempts: AtomicUsize,
    open: Arc<AtomicUsize>,
    numbers: AtomicU64,
}

/// A connection; counted while it lives.
#[derive(Clone, Debug)]
struct Connection(Arc<Wire>);

#[derive(Debug)]
struct Wire {
    number: u64,
    open: Arc<AtomicUsize>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Debug)]
struct Handle(Arc<Line>);

impl Handle {
    fn new(server: Server) -> Self {
        Self(Arc::new(Line {
            server: watch::Sender::new(server),
            attempts: AtomicUsize::new(0),
            open: Arc::default(),
            numbers: AtomicU64::new(0),
        }))
    }

    fn now(&self, server: Server) {
        self.0.server.send_replace(server);
    }

    fn attempts(&self) -> usize {
        self.0.attempts.load(Ordering::SeqCst)
    }

    fn open(&self) -> usize {
        self.0.open.load(Ordering::SeqCst)
    }
}

impl Connect for Handle {
    type Connection = Connection;

    async fn connect(&self) -> Result<Connection> {
        self.0.attempts.fetch_add(1, Ordering::SeqCst);
        let server = *self.0.server.borrow();
        match server {
            Server::Serves => {}
            Server::Refuses => return Err(Error::unauthenticated("wrong password")),
            Server::Hangs => std::future::pending().await,
            Server::Panics => panic!("a driver's mistake"),
        }
        self.0.open.fetch_add(1, Ordering::SeqCst);
        Ok(Connection(Arc::new(Wire {
            number: self.0.numbers.fetch_add(1, Ordering::SeqCst) + 1,
            open: Arc::clone(&self.0.open),
        })))
    }

    async fn lost(&self, _: &Connection) -> Error {
        let mut server = self.0.server.subscribe();
        let away = server.wait_for(|server| *server != Server::Serves).await;
        drop(away);
        Error::unavailable("the server went away")
    }

    async fn close(&self, connection: Connection, _: Instant) -> Result<()> {
        drop(connection);
        Ok(())
    }
}

fn supervised(server: Server) -> (Handle, Supervisor<Handle>) {
    let line = Handle::new(server);
    let supervisor = Supervisor::new(line.clone(), Reconnect::default());
    (line, supervisor)
}

async fn until(supervisor: &Supervisor<Handle>, wanted: impl FnMut(&LinkState) -> bool) {
    supervisor
        .state()
        .wait_for(wanted)
        .await
        .expect("the supervisor is there");
}

fn is_down(state: &LinkState) -> bool {
    matches!(state, LinkState::Down { .. })
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_before_it_is_started() {
    let (line, supervisor) = supervised(Server::Serves);
    let error = supervisor.connection().await.expect_err("nobody connects");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.retry(), Retry::Safe);
    assert_eq!(line.attempts(), 0);
    assert_eq!(*supervisor.state().borrow(), LinkState::Connecting);
}

#[tokio::test(start_paused = true)]
async fn connect_tells_the_outcome_and_attempts_go_on() {
    let (line, supervisor) = supervised(Server::Refuses);
    let error = supervisor.connect().await.expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Unauthenticated);
    assert_eq!(error.message(), "wrong password");

    line.now(Server::Serves);
    let (connection, generation) = supervisor.connection().await.expect("it serves now");
    assert_eq!((connection.0.number, generation.number()), (1, 1));
    supervisor.connect().await.expect("it is connected");
}

#[tokio::test(start_paused = true)]
async fn connect_does_not_wait_for_its_turn() {
    let (line, supervisor) = supervised(Server::Refuses);
    supervisor.start();
    until(&supervisor, is_down).await;
    // The waits have grown to their longest.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (before, since) = (line.attempts(), Instant::now());
    supervisor.connect().await.expect_err("it is refused");
    assert_eq!(line.attempts(), before + 1);
    assert_eq!(since.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn attempts_never_end_and_grow_rare() {
    let (line, supervisor) = supervised(Server::Refuses);
    supervisor.start();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let attempts = line.attempts();
    // Every 2.5 to 5 s once the waits are at their longest.
    assert!((120..260).contains(&attempts), "{attempts}");
    line.now(Server::Serves);
    supervisor.connection().await.expect("it serves at last");
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_no_longer_than_its_deadline_and_hears_why() {
    let (_line, supervisor) = supervised(Server::Refuses);
    supervisor.start();
    until(&supervisor, is_down).await;
    let since = Instant::now();
    let context = Context::new().with_deadline(since + Duration::from_secs(3));
    let error = context
        .scope(supervisor.connection())
        .await
        .expect_err("it is refused");
    assert_eq!(since.elapsed(), Duration::from_secs(3));
    assert_eq!(error.retry(), Retry::Safe);
    assert!(
        error.report().to_string().contains("wrong password"),
        "{}",
        error.report()
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_and_a_driver_that_panics_are_failed_attempts() {
    let (line, supervisor) = supervised(Server::Hangs);
    let error = supervisor.connect().await.expect_err("nothing answers");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    line.now(Server::Panics);
    let error = supervisor.connect().await.expect_err("the driver panics");
    assert!(error.message().contains("a driver's mistake"), "{error}");
    line.now(Server::Serves);
    supervisor.connection().await.expect("it serves now");
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_made_anew_and_no_two_are_open() {
    let (line, supervisor) = supervised(Server::Serves);
    supervisor.connect().await.expect("it serves");
    for round in 2..=20 {
        line.now(Server::Refuses);
        until(&supervisor, is_down).await;
        line.now(Server::Serves);
        let (connection, generation) = supervisor.connection().await.expect("it serves again");
        assert_eq!((connection.0.number, generation.number()), (round, round));
        drop(connection);
        assert_eq!(line.open(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_condemned_connection_is_replaced_once_however_many_tell() {
    let (line, supervisor) = supervised(Server::Serves);
    supervisor.connect().await.expect("it serves");
    let (_, first) = supervisor.connection().await.expect("it is connected");
    for _ in 0..10 {
        supervisor.broken(first, Error::unavailable("its channels answer nothing"));
    }
    until(&supervisor, is_down).await;
    let (_, second) = supervisor.connection().await.expect("there is another");
    assert_eq!(second.number(), 2);
    // Late news of the first.
    supervisor.broken(first, Error::unavailable("its channels answer nothing"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (_, still) = supervisor.connection().await.expect("it is connected");
    assert_eq!(still, second);
    assert_eq!(line.open(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drops_every_connection_at_once_is_not_flooded() {
    let (line, supervisor) = supervised(Server::Serves);
    supervisor.start();
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(600) {
        let (_, generation) = supervisor.connection().await.expect("it serves");
        supervisor.broken(generation, Error::unavailable("not a clustered node"));
        until(&supervisor, is_down).await;
    }
    assert!((120..260).contains(&line.attempts()), "{}", line.attempts());
}

#[tokio::test(start_paused = true)]
async fn closing_ends_it_for_everybody() {
    let (line, supervisor) = supervised(Server::Serves);
    supervisor.connect().await.expect("it serves");
    let clone = supervisor.clone();
    let soon = Instant::now() + Duration::from_secs(1);
    supervisor.close(soon).await.expect("it closes");
    supervisor.close(soon).await.expect("it is closed");
    assert_eq!(line.open(), 0);
    assert_eq!(*clone.state().borrow(), LinkState::Closed);
    for error in [
        clone.connection().await.expect_err("closed"),
        clone.current().expect_err("closed"),
        clone.connect().await.expect_err("closed"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(line.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_while_it_is_closed_is_told_at_once() {
    let (_line, supervisor) = supervised(Server::Refuses);
    supervisor.start();
    until(&supervisor, is_down).await;
    let since = Instant::now();
    let closing = async {
        tokio::task::yield_now().await;
        supervisor.close(Instant::now()).await
    };
    let (waited, closed) = tokio::join!(supervisor.connection(), closing);
    closed.expect("there is nothing to close");
    assert_eq!(waited.expect_err("closed").kind(), ErrorKind::Cancelled);
    assert_eq!(since.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_closes_the_connection() {
    let (line, supervisor) = supervised(Server::Serves);
    supervisor.connect().await.expect("it serves");
    let mut state = supervisor.state();
    drop(supervisor);
    let ended = state.wait_for(|state| *state == LinkState::Closed).await;
    ended.expect("it says so before it goes");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(line.open(), 0);
}

#[test]
fn what_was_in_flight_may_have_been_processed() {
    let error = in_flight(Error::unavailable("reset by peer"));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.retry(), Retry::IfIdempotent);
}
