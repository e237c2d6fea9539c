//! When a request is worked on.
//!
//! Source: `k8s.io/apiserver/pkg/server/filters/priority-and-fairness.go`,
//! `pkg/util/flowcontrol/request/list_work_estimator.go`.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use orch_store::{KeyRange, RangeRequest};

use super::{options::Query, request_info::RequestInfo, respond};
use crate::{
    auth::UserInfo,
    connect::BoxBody,
    flow::{Flow, FlowControl, Seats},
    server::Inner,
};

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
/// How many objects of a list take one seat, and how many seats a list takes at most.
const OBJECTS_PER_SEAT: u64 = 100;
const SEATS_MAX: u64 = 10;

/// A request that may be worked on: its seats, and where it was sorted to.
pub(super) struct Admitted {
    _seats: Seats,
    flow: Flow,
}

/// Waits for a request's turn. `None`: nobody decides about it.
///
/// # Errors
/// The answer to one that is not worked on.
pub(super) async fn admit(
    server: &Inner,
    control: &FlowControl,
    info: &RequestInfo,
    query: &Query,
    user: &UserInfo,
) -> Result<Option<Admitted>, Response<BoxBody>> {
    // Connections take as long as they take; of a watch the beginning counts.
    if info.is_long_running() && info.verb != "watch" {
        return Ok(None);
    }
    let Some(flow) = control.classify(info, user) else { return Ok(None) };
    let width = width(server, info, query).await;
    match control.seat(&flow, width).await {
        Ok(seats) => Ok(Some(Admitted { _seats: seats, flow })),
        Err(_) => {
            let why = "Too many requests, please try again later.\n";
            let media_type = "text/plain; charset=utf-8";
            let mut response = respond::bytes(StatusCode::TOO_MANY_REQUESTS, media_type, why);
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            mark(headers, &flow);
            Err(response)
        }
    }
}

impl Admitted {
    /// Tells in the answer where the request was sorted to.
    pub(super) fn mark(&self, response: &mut Response<BoxBody>) {
        mark(response.headers_mut(), &self.flow);
    }
}

fn mark(headers: &mut HeaderMap, flow: &Flow) {
    for (name, uid) in [(SCHEMA_UID, &flow.schema_uid), (LEVEL_UID, &flow.level_uid)] {
        if let Ok(uid) = HeaderValue::from_str(uid) {
            headers.insert(name, uid);
        }
    }
}

/// How many seats a request takes: a list as many as it looks at objects.
async fn width(server: &Inner, info: &RequestInfo, query: &Query) -> u32 {
    let initial = || {
        let version = query.get("resourceVersion").unwrap_or_default();
        query.flag("sendInitialEvents") || matches!(version, "" | "0")
    };
    let lists = info.verb == "list" || info.verb == "watch" && initial();
    if !lists || !info.name.is_empty() {
        return 1;
    }
    let catalog = server.customs.last_known();
    let Some(resource) = catalog.find(&info.group, &info.version, &info.resource) else { return 1 };
    let range = KeyRange::prefix(resource.prefix.clone().into_bytes());
    let mut request = RangeRequest::new(range);
    request.count_only = true;
    let Ok(found) = server.store.range(request).await else { return 1 };
    let seats = (found.count as u64).div_ceil(OBJECTS_PER_SEAT).clamp(1, SEATS_MAX);
    u32::try_from(seats).unwrap_or(1)
}
