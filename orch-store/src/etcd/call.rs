//! A call to etcd: over the members that may do it, with a new token where the old one has ended,
//! within one deadline.

use std::{error::Error as _, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::time::{Instant, timeout_at};
use tonic::{Response, Status};

use super::{
    Inner,
    auth::Generation,
    members::{Clients, Opened},
    outcome::{Call, Cause, Failure},
};
use crate::{StoreError, protocol::etcdserverpb as pb};

/// How long to wait when no member knows a leader.
const ELECTION_PAUSE: Duration = Duration::from_millis(100);

impl Inner {
    /// Makes a call. What was surely not done is tried at every member; a token that etcd does not
    /// take is renewed once; while no leader is known it is waited for one. What may have been
    /// done is done again only if it is repeatable.
    pub(super) async fn call<T, F>(
        self: &Arc<Self>,
        call: Call,
        attempt: impl Fn(Clients) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        self.authenticated(call, attempt).await.map_err(|failure| failure.store_error(call))
    }

    pub(super) async fn authenticated<T, F>(
        self: &Arc<Self>,
        call: Call,
        attempt: impl Fn(Clients) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + self.options.request_timeout;
        let generation = self.auth.generation();
        match self.somewhere(call, deadline, &attempt).await {
            Err(failure) if failure.cause == Cause::Token && self.auth.credentials().is_some() => {
                self.renew_token(generation, deadline).await?;
                self.somewhere(call, deadline, &attempt).await
            }
            answer => answer,
        }
    }

    /// Gets a new token, unless somebody else has got one since `stale`.
    pub(super) async fn renew_token(
        self: &Arc<Self>,
        stale: Generation,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let Some(credentials) = self.auth.credentials() else { return Ok(()) };
        // Renewing is not the call: whatever happens to it, the call was not made.
        let not_made = |failure: Failure| match failure.cause {
            Cause::Lost => Failure { cause: Cause::NotExecuted, ..failure },
            _ => failure,
        };
        let one = timeout_at(deadline, self.auth.renewal.lock()).await;
        let _one = one.map_err(|_| not_made(Failure::timed_out()))?;
        if self.auth.generation() != stale {
            return Ok(());
        }
        let attempt = |mut clients: Clients| async move {
            let name = credentials.user.clone();
            let request = pb::AuthenticateRequest { name, password: credentials.password.clone() };
            clients.auth.authenticate(request).await.map(Response::into_inner)
        };
        match self.somewhere(Call::read(0), deadline, &attempt).await {
            Ok(answer) => Ok(self.auth.accept(Some(&answer.token))?),
            Err(failure) if failure.cause == Cause::NoAuthentication => {
                Ok(self.auth.accept(None)?)
            }
            Err(failure) => Err(not_made(failure)),
        }
    }

    /// Asks one member after the other, as far as that is safe.
    async fn somewhere<T, F>(
        self: &Arc<Self>,
        call: Call,
        deadline: Instant,
        attempt: &impl Fn(Clients) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut tried = Vec::new();
        let (mut last, mut passes) = (Failure::timed_out(), false);
        loop {
            let Some(opened) = self.members.open(&tried) else {
                if !passes || Instant::now() + ELECTION_PAUSE >= deadline {
                    return Err(last);
                }
                self.pause(ELECTION_PAUSE).await;
                (passes, tried) = (false, Vec::new());
                continue;
            };
            let clients = opened.clients();
            tried.push(clients.index);
            let index = clients.index;
            let others = tried.len() < self.members.count();
            let limit = if call.repeatable && others { halfway(deadline) } else { deadline };
            last = match one(opened, limit, attempt(clients)).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if last.blames_member() {
                tracing::debug!(member = index, status = %last.status, "an etcd member failed");
                self.member_failed(index);
            }
            let again = match last.cause {
                Cause::NoLeader | Cause::NotExecuted => true,
                Cause::Lost => call.repeatable,
                _ => false,
            };
            if !again || Instant::now() >= deadline {
                return Err(last);
            }
            passes |= last.passes();
        }
    }

    /// Between half and all of `most`, so that many do not come back at once.
    pub(super) fn pause(&self, most: Duration) -> BoxFuture<'static, ()> {
        let environment = &self.options.environment;
        environment.clock.sleep(most.mul_f64(0.5 + environment.random.unit() / 2.0))
    }
}

/// One attempt at one member.
async fn one<T>(
    opened: Opened<'_>,
    limit: Instant,
    attempt: impl Future<Output = Result<T, Status>>,
) -> Result<T, Failure> {
    match timeout_at(limit, attempt).await {
        Ok(Ok(answer)) => {
            opened.heard();
            Ok(answer)
        }
        Ok(Err(status)) => {
            if status.source().is_none() {
                opened.heard();
            }
            Err(status.into())
        }
        Err(_) => Err(Failure::timed_out()),
    }
}

/// A member that is silent must not use up all of the time.
fn halfway(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}
