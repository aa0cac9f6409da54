//! The user's layers around a client.

use std::fmt;
use std::sync::Arc;

use http::{Request, Response};
use tower::util::{BoxCloneSyncService, ServiceExt};
use tower::{ServiceBuilder, service_fn};
use tower_layer::Layer;
use tower_service::Service;
use trunkline_core::{BoxError, Error, Result};

use super::core::Core;
use crate::body::Body;
use crate::middleware::{Hook, Hooks, around_call};
use crate::options::Draft;
use crate::transport::Reply;

/// What a user's layer is put around.
pub type ClientService = BoxCloneSyncService<Request<Body>, Response<Body>, Error>;

type Wrap = Arc<dyn Fn(ClientService, &Arc<Core>) -> ClientService + Send + Sync>;

/// A client's core with the layers around it.
#[derive(Clone)]
pub(crate) struct Handle {
    core: Arc<Core>,
    /// The first is the outermost.
    layers: Vec<Wrap>,
    /// All of them around the core; `None` without layers.
    stack: Option<ClientService>,
    /// Around every attempt; `None` without any.
    hooks: Option<Hooks>,
}

impl Handle {
    pub(super) fn new(core: Arc<Core>) -> Self {
        core.cache.belongs_to(&core);
        Self {
            core,
            layers: Vec::new(),
            stack: None,
            hooks: None,
        }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Makes a call through the layers.
    pub(crate) async fn call(&self, mut draft: Box<Draft>, body: Body) -> Result<Reply> {
        if let Some(hooks) = &self.hooks {
            draft.options.around = Some(hooks.clone());
        }
        match &self.stack {
            None => self.core.call(draft, body).await,
            Some(stack) => Box::pin(self.through(stack.clone(), draft, body)).await,
        }
    }

    async fn through(
        &self,
        stack: ClientService,
        mut draft: Box<Draft>,
        body: Body,
    ) -> Result<Reply> {
        // The context is that of whoever called, on whichever task the layers go on.
        let context = &mut draft.options.context;
        context.get_or_insert_with(|| self.core.current_context());
        let answered = stack.oneshot(draft.into_request(body)).await;
        answered.map(Box::new)
    }

    /// Adds a layer inside those that are there.
    pub(super) fn add<L, B>(&mut self, layer: L)
    where
        L: Layer<ClientService> + Send + Sync + 'static,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError>,
        <L::Service as Service<Request<Body>>>::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.wrap(Arc::new(move |inner, _| {
            let wrapped = ServiceBuilder::new()
                .map_response(|response: Response<B>| response.map(Body::new))
                .map_err(|error: <L::Service as Service<Request<Body>>>::Error| {
                    Error::from_boxed(error.into())
                })
                .service(layer.layer(inner));
            BoxCloneSyncService::new(wrapped)
        }));
    }

    /// Adds a middleware inside the layers that are there.
    pub(crate) fn add_hook(&mut self, hook: Hook) {
        self.wrap(Arc::new(move |inner, core| around_call(inner, core, &hook)));
    }

    /// Adds a middleware around attempts, inside those that are there.
    pub(crate) fn add_attempt_hook(&mut self, hook: Hook) {
        self.hooks = Some(Hooks::with(self.hooks.as_ref(), hook));
    }

    fn wrap(&mut self, wrap: Wrap) {
        self.layers.push(wrap);
        let innermost = self.innermost();
        let around = |inner, wrap: &Wrap| wrap(inner, &self.core);
        self.stack = Some(self.layers.iter().rev().fold(innermost, around));
    }

    fn innermost(&self) -> ClientService {
        let core = Arc::clone(&self.core);
        BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
            let core = Arc::clone(&core);
            let (draft, body) = Draft::of(request);
            async move { Ok(*core.call(draft, body).await?) }
        }))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("core", &self.core)
            .field("layers", &self.layers.len())
            .finish_non_exhaustive()
    }
}
