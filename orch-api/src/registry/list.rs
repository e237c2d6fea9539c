//! Lists: from the cache where it is as new as asked for, else from the store's history.

use std::sync::Arc;

use bytes::Bytes;
use orch_core::{
    ApiError, Object,
    client::{ListOptions, ObjectList},
    status::FieldError,
};
use orch_store::{KeyRange, RangeRequest, Revision, StoreError};

use super::{Addressed, continuation};
use crate::{
    cache::{Filter, Item, Selectable, decode, reloading, store_error, too_large},
    server::Inner,
};

/// How new a list must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freshness {
    /// As new as the store.
    MostRecent,
    /// Whatever the cache has.
    Any,
    /// This or newer.
    NotOlderThan(Revision),
    /// Exactly this.
    Exact(Revision),
}

pub(super) fn parse_version(text: Option<&str>) -> Result<Option<Revision>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        invalid_options(&[FieldError::invalid("resourceVersion", text, why)])
    })
}

pub(super) fn invalid_options(errors: &[FieldError]) -> ApiError {
    ApiError::invalid("meta.k8s.io", "ListOptions", "", errors)
}

impl Freshness {
    /// Source: `k8s.io/apimachinery/pkg/apis/meta/internalversion/validation`, and the table of
    /// resource version semantics in Kubernetes' API concepts.
    fn of(options: &ListOptions) -> Result<Self, ApiError> {
        let version = parse_version(options.resource_version.as_deref())?;
        let rule = options.resource_version_match.as_deref().filter(|text| !text.is_empty());
        let field = "resourceVersionMatch";
        if rule.is_some() && version.is_none() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            return Err(invalid_options(&[FieldError::forbidden(field, why)]));
        }
        match (version, rule) {
            (None, _) => Ok(Self::MostRecent),
            (Some(0), Some("Exact")) => {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                Err(invalid_options(&[FieldError::forbidden(field, why)]))
            }
            (Some(0), None | Some("NotOlderThan")) => Ok(Self::Any),
            (Some(version), Some("Exact")) => Ok(Self::Exact(version)),
            // Paging at a resource version has always meant exactly that one.
            (Some(version), None) if options.limit.is_some_and(|limit| limit > 0) => {
                Ok(Self::Exact(version))
            }
            (Some(version), None | Some("NotOlderThan")) => Ok(Self::NotOlderThan(version)),
            (_, Some(other)) => {
                let known = ["Exact", "NotOlderThan", ""];
                Err(invalid_options(&[FieldError::not_supported(field, other, &known)]))
            }
        }
    }
}

/// A page under construction, in the version that is stored.
struct Page {
    items: Vec<Arc<Object>>,
    revision: Revision,
    /// The last key of a page that more objects follow.
    more_after: Option<Bytes>,
    remaining: Option<i64>,
}

impl Inner {
    pub(crate) async fn list(
        &self,
        at: &Addressed,
        options: &ListOptions,
    ) -> Result<ObjectList, ApiError> {
        let filter = Filter::parse(
            &at.resource,
            at.strategy.clone(),
            at.namespace(),
            options.label_selector.as_deref(),
            options.field_selector.as_deref(),
        )?;
        let limit = options.limit.filter(|limit| *limit > 0).map(|limit| limit as usize);
        let page = match options.continue_token.as_deref().filter(|token| !token.is_empty()) {
            Some(token) => {
                if options.resource_version.as_deref().is_some_and(|rv| !rv.is_empty() && rv != "0")
                {
                    let why = "specifying resource version is not allowed when using continue";
                    return Err(ApiError::bad_request(why));
                }
                self.list_on(at, &filter, limit, token).await?
            }
            None => match Freshness::of(options)? {
                Freshness::Exact(revision) => {
                    let start = at.resource.collection_prefix(at.namespace());
                    self.list_stored(at, &filter, limit, Some(revision), start).await.map_err(
                        |error| match error {
                            StoreError::Future { requested, current } => {
                                too_large(requested, current)
                            }
                            other => store_error(other),
                        },
                    )?
                }
                freshness => self.list_cached(at, &filter, limit, freshness).await?,
            },
        };
        let prefix = at.resource.collection_prefix(at.namespace());
        Ok(ObjectList {
            items: self.served_list(&at.resource, page.items).await?,
            resource_version: page.revision.to_string(),
            continue_token: page
                .more_after
                .map(|key| continuation::encode(&prefix, &key, Some(page.revision))),
            remaining_item_count: page.remaining,
        })
    }

    async fn list_cached(
        &self,
        at: &Addressed,
        filter: &Filter,
        limit: Option<usize>,
        freshness: Freshness,
    ) -> Result<Page, ApiError> {
        let collection = self.cache.collection(&at.resource).await?;
        match freshness {
            Freshness::MostRecent => {
                let current = self.cache.current_revision().await?;
                self.cache.fresh(current).await?;
            }
            Freshness::NotOlderThan(revision) => self.cache.fresh(revision).await?,
            Freshness::Any | Freshness::Exact(_) => {}
        }
        let snapshot = collection.snapshot(filter, self.cache.seen()).ok_or_else(reloading)?;
        let prefix = at.resource.collection_prefix(at.namespace());
        let mut selected = snapshot.select(filter, &prefix);
        let mut page = Page {
            items: Vec::new(),
            revision: snapshot.revision,
            more_after: None,
            remaining: None,
        };
        let Some(limit) = limit else {
            page.items = selected.map(|(_, item)| item.object.clone()).collect();
            return Ok(page);
        };
        let mut last = None;
        for (key, item) in selected.by_ref().take(limit) {
            page.items.push(item.object.clone());
            last = Some(key.clone());
        }
        if selected.next().is_some() {
            page.more_after = last;
            // Upstream tells how many remain only where nothing was selected away.
            page.remaining = filter
                .is_everything()
                .then(|| i64::try_from(selected.count() + 1).unwrap_or(i64::MAX));
        }
        Ok(page)
    }

    /// The next page of a list that has begun.
    async fn list_on(
        &self,
        at: &Addressed,
        filter: &Filter,
        limit: Option<usize>,
        token: &str,
    ) -> Result<Page, ApiError> {
        let prefix = at.resource.collection_prefix(at.namespace());
        let from = continuation::decode(&prefix, token)?;
        let start = from.start.clone();
        match self.list_stored(at, filter, limit, from.revision, from.start).await {
            Err(StoreError::Compacted { .. }) => Err(gone_page(&prefix, &start)),
            other => other.map_err(store_error),
        }
    }

    /// Reads the store's own history, page by page until the limit is filled.
    async fn list_stored(
        &self,
        at: &Addressed,
        filter: &Filter,
        limit: Option<usize>,
        revision: Option<Revision>,
        mut start: Vec<u8>,
    ) -> Result<Page, StoreError> {
        let prefix = at.resource.collection_prefix(at.namespace());
        let end = KeyRange::prefix(prefix).end;
        let mut page = Page { items: Vec::new(), revision: 0, more_after: None, remaining: None };
        let mut at_revision = revision;
        let (cached, selectable) = (self.cache.peek(&at.resource), Selectable::of(&at.resource));
        loop {
            let range = KeyRange { start: Bytes::from(start), end: end.clone() };
            let wanted = limit.map(|limit| limit - page.items.len());
            let mut request = RangeRequest::new(range);
            (request.revision, request.limit) = (at_revision, wanted);
            let response = self.store.range(request).await?;
            page.revision = at_revision.unwrap_or(response.revision);
            at_revision = Some(page.revision);
            let last = response.entries.last().map(|entry| entry.key.clone());
            let seen = response.entries.len();
            for entry in &response.entries {
                let cached = cached.as_ref().and_then(|c| c.at(&entry.key, entry.mod_revision));
                let decoded = || decode(&entry.key, &entry.value, entry.mod_revision);
                let Some(object) = cached.or_else(decoded) else { continue };
                let item = Item::new(object, selectable);
                if filter.matches(&item) {
                    page.items.push(item.object);
                }
            }
            let Some(last) = last.filter(|_| response.more) else { return Ok(page) };
            if limit.is_some_and(|limit| page.items.len() >= limit) {
                let left = response.count.saturating_sub(seen);
                page.remaining =
                    filter.is_everything().then(|| i64::try_from(left).unwrap_or(i64::MAX));
                page.more_after = Some(last);
                return Ok(page);
            }
            start = last.to_vec();
            start.push(0);
        }
    }
}

/// The answer to a page whose revision is gone: with a token that goes on at the newest one.
///
/// Source: `k8s.io/apiserver/pkg/storage/etcd3/errors.go`.
fn gone_page(prefix: &[u8], start: &[u8]) -> ApiError {
    let last = start.strip_suffix(b"\0").unwrap_or(start);
    let token = continuation::encode(prefix, last, None);
    let error = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can \
         start a new list without the continue parameter, or use the continue token in this \
         response to retrieve the remainder of the results. Continuing with the provided token \
         results in an inconsistent list - objects that were created, modified, or deleted between \
         the time the first chunk was returned and now may show up in the list.",
    );
    error.with_continue(token)
}
