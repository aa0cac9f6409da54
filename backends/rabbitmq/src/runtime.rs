//! The runtime that the driver is given: Tokio, with every task of a connection in a scope of its own, and timers that end
//! with it. So closing a connection leaves nothing behind.

use std::fmt;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::{DummyIO, Task, TaskImpl};
use futures_core::Stream;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::FutureExt as _;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use trunkline_core::task::Scope;

use crate::line::{Line, Scissors};

/// What one connection runs on.
#[derive(Clone)]
pub(crate) struct Kit {
    handle: Handle,
    scope: Scope,
    scissors: Scissors,
}

impl Kit {
    /// # Panics
    /// Outside a Tokio runtime.
    pub(crate) fn new(scope: Scope, scissors: Scissors) -> Self {
        let handle = Handle::current();
        Self {
            handle,
            scope,
            scissors,
        }
    }
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit").finish_non_exhaustive()
    }
}

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = Running<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.handle.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Running<T>> {
        let (done, result) = oneshot::channel();
        // The driver spawns from its own thread, too.
        let _runtime = self.handle.enter();
        self.scope.spawn("AMQP connection", async move {
            // Nobody has to wait for the result.
            drop(done.send(future.await));
        });
        Running(result).into()
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Running<T>> {
        let work = self.handle.spawn_blocking(work);
        self.spawn(async move {
            match work.await {
                Ok(result) => result,
                // A panic is logged by the scope; a runtime that ends takes this task with it.
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => std::future::pending().await,
                },
            }
        })
    }
}

/// A task that goes on whether or not this is kept.
pub(crate) struct Running<T>(oneshot::Receiver<T>);

impl<T: Send + 'static> TaskImpl for Running<T> {}

impl<T> Future for Running<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.0.poll_unpin(cx) {
            Poll::Ready(Ok(result)) => Poll::Ready(result),
            // It was ended with its connection, and so is who waits for it.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Reactor for Kit {
    type TcpStream = Line;
    type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<DummyIO, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, span: Duration) -> Self::Sleep {
        let _runtime = self.handle.enter();
        let sleep = tokio::time::sleep(span);
        // The heartbeat looks whether the connection has ended only when it wakes.
        let ended = self.scope.token();
        Box::pin(async move {
            tokio::select! {
                () = sleep => {}
                () = ended.cancelled() => {}
            }
        })
    }

    fn interval(&self, span: Duration) -> impl Stream<Item = std::time::Instant> + Send + 'static {
        let _runtime = self.handle.enter();
        futures_util::stream::unfold(tokio::time::interval(span), |mut interval| async {
            let now = interval.tick().await.into_std();
            Some((now, interval))
        })
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Line>> + Send + 'static {
        let scissors = self.scissors.clone();
        async move { Ok(Line::plain(TcpStream::connect(address).await?, scissors)) }
    }
}
