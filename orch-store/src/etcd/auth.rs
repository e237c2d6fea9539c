//! The token that etcd's authentication gives, and the headers of every call.

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use super::options::EtcdCredentials;

/// Which token, in the order in which they were given.
pub(super) type Generation = u64;

/// Who we are, and the token that proves it for now.
pub(super) struct Auth {
    credentials: Option<EtcdCredentials>,
    token: Mutex<(Generation, Option<MetadataValue<Ascii>>)>,
    /// Held by the one who asks for a new token, so that a crowd asks once.
    pub(super) renewal: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl Auth {
    pub(super) fn new(credentials: Option<EtcdCredentials>) -> Self {
        let renewal = tokio::sync::Mutex::new(());
        Self { credentials, token: Mutex::new((0, None)), renewal }
    }

    pub(super) fn credentials(&self) -> Option<&EtcdCredentials> {
        self.credentials.as_ref()
    }

    pub(super) fn generation(&self) -> Generation {
        self.token.lock().0
    }

    /// Takes a new token; `None` where etcd has authentication disabled.
    pub(super) fn accept(&self, token: Option<&str>) -> Result<(), Status> {
        let value = token.map(|token| {
            let mut value = MetadataValue::<Ascii>::try_from(token)
                .map_err(|_| Status::internal("etcd gave a token that is not text"))?;
            value.set_sensitive(true);
            Ok::<_, Status>(value)
        });
        let value = value.transpose()?;
        let mut current = self.token.lock();
        *current = (current.0 + 1, value);
        Ok(())
    }
}

/// Puts on every call what etcd looks for.
#[derive(Clone, Debug)]
pub(super) struct Headers {
    /// `None` for the call that gets a token: with one that has ended, older etcds refuse it.
    pub(super) auth: Option<Arc<Auth>>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        // A member that knows no leader must refuse a call and end a watch at once: another member
        // may know one, while a call that was taken in would end as a write of unknown outcome.
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = self.auth.as_ref().and_then(|auth| auth.token.lock().1.clone()) {
            metadata.insert("token", token);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_sent_and_never_printed() {
        let credentials = EtcdCredentials { user: "ann".into(), password: "hunter2".into() };
        let auth = Arc::new(Auth::new(Some(credentials)));
        let mut headers = Headers { auth: Some(auth.clone()) };
        let request = headers.call(Request::new(())).unwrap();
        assert!(request.metadata().get("token").is_none());
        auth.accept(Some("secret.7")).unwrap();
        assert_eq!(auth.generation(), 1);
        let request = headers.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("token").unwrap(), "secret.7");
        assert_eq!(request.metadata().get("hasleader").unwrap(), "true");
        let printed = format!("{headers:?} {:?}", request.metadata());
        assert!(!printed.contains("secret") && !printed.contains("hunter2"), "{printed}");
        auth.accept(None).unwrap();
        assert!(headers.call(Request::new(())).unwrap().metadata().get("token").is_none());
    }
}
