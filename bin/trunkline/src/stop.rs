//! Being asked to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves at Ctrl-C or SIGTERM. Both are listened to from now on, not from the first poll.
pub(crate) fn asked() -> impl Future<Output = ()> {
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async move {
        let [interrupt, terminate] = signals.map(heard);
        tokio::select! {
            () = interrupt => {}
            () = terminate => {}
        }
    }
}

/// A signal that cannot be listened to ends the process as it always did.
async fn heard(signal: std::io::Result<Signal>) {
    match signal {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    }
}
