//! A component's connection to the API: slow, broken, cut off, or gone with the component.
//!
//! What goes wrong is decided in one place, the `Line`. It has two faces: `Link` for components
//! that use the [`Client`] contract, and a service over HTTP for those that use a `kube::Client`.

mod calls;
mod held;
mod http;
mod life;
mod line;
mod stale;
mod watched;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use orch_core::{
    ApiError, Client, ClientError, ResourceType, Target,
    client::{Read, ReadReply, WatchOptions, WatchStream, Write, WriteReply},
    testing::{Call, Fault},
};

pub use calls::Calls;
pub use held::Held;
pub(crate) use http::over_http;
pub(crate) use life::Life;
pub(crate) use line::{Fate, Line, Pace};

/// The connection of one life of a component: calls of a life that has ended come to nothing.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) line: Arc<Line>,
    pub(crate) life: Arc<Life>,
}

impl Connection {
    /// Carries a call to the server and its answer back. `told` is what the caller is told where
    /// something goes wrong: an answer of the server, or that the connection broke.
    async fn call<T>(
        &self,
        fate: Fate,
        call: impl Future<Output = T>,
        told: impl Fn(Option<ApiError>) -> T,
    ) -> T {
        self.life.stop_if_over().await;
        if let Some(gate) = &fate.gate {
            gate.pass().await;
        }
        self.line.travel().await;
        self.life.stop_if_over().await;
        let crash = self.line.count();
        if crash == Some(false) {
            self.life.end();
            self.life.stop_if_over().await;
        }
        if self.line.is_cut() {
            self.line.breaks().await;
            return told(None);
        }
        let late = matches!(fate.fault, Some((Fault::TimeoutBefore | Fault::TimeoutAfter, _)));
        let fault = fate.fault.map(|(fault, answer)| (fault, told(answer)));
        let answer = Fault::through(fault, call).await;
        if late {
            self.line.times_out().await;
        }
        if crash.is_some() {
            self.life.end();
        }
        self.life.stop_if_over().await;
        self.line.travel().await;
        self.life.stop_if_over().await;
        answer
    }
}

/// The connection of a component that uses the [`Client`] contract.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) inner: Arc<dyn Client>,
    pub(crate) connection: Connection,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("line", &self.connection.line).finish_non_exhaustive()
    }
}

fn told<T>(answer: Option<ApiError>) -> Result<T, ClientError> {
    let broken = || ClientError::Transport("injected: the connection broke".into());
    Err(answer.map_or_else(broken, ClientError::Api))
}

impl Link {
    async fn call<T>(
        &self,
        fate: Fate,
        call: impl Future<Output = Result<T, ClientError>> + Send,
    ) -> Result<T, ClientError> {
        self.connection.call(fate, call, told).await
    }
}

#[async_trait]
impl Client for Link {
    async fn read(&self, read: Read) -> Result<ReadReply, ClientError> {
        let fate = self.connection.line.fate(&Call::read(&read));
        self.call(fate, self.inner.read(read)).await
    }

    async fn write(&self, write: Write) -> Result<WriteReply, ClientError> {
        let fate = self.connection.line.fate(&Call::write(&write));
        self.call(fate, self.inner.write(write)).await
    }

    async fn watch(
        &self,
        target: Target,
        options: WatchOptions,
    ) -> Result<WatchStream, ClientError> {
        let call = Call::watch(&target);
        let fate = self.connection.line.fate(&call);
        let event = call.event().into_owned();
        let inner = self.call(fate, self.inner.watch(target, options)).await?;
        Ok(watched::watched(self.connection.clone(), event, inner, told))
    }

    async fn resource_types(&self) -> Result<Vec<ResourceType>, ClientError> {
        self.call(Fate::default(), self.inner.resource_types()).await
    }
}
