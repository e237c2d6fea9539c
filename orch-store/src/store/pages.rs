//! Long ranges, page by page.

use std::sync::Arc;

use futures::stream::{self, BoxStream};

use super::{KeyRange, RangeRequest, RangeResponse, StoreReader};
use crate::StoreError;

/// A range in pages of at most `page` entries (at least 1), all of one revision: the one asked
/// for, or the newest when the first page is read. No more than a page is held at once, and
/// nothing is locked in between. The request's limit is that of the whole range.
///
/// An error is the last item: [`StoreError::Compacted`] if that revision is compacted before the
/// last page is read.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), orch_store::StoreError> {
/// use futures::TryStreamExt as _;
/// use orch_store::{KeyRange, MemoryStore, RangeRequest, Store, Write, pages};
///
/// let store = MemoryStore::default();
/// for number in 0..25 {
///     store.write(Write::create(format!("/pods/{number}"), "{}")).await?;
/// }
/// let pods = RangeRequest::new(KeyRange::prefix("/pods/"));
/// let sizes: Vec<usize> = pages(std::sync::Arc::new(store), pods, 10)
///     .map_ok(|page| page.entries.len())
///     .try_collect()
///     .await?;
/// assert_eq!(sizes, [10, 10, 5]);
/// # Ok(())
/// # }
/// ```
pub fn pages(
    reader: Arc<dyn StoreReader>,
    request: RangeRequest,
    page: usize,
) -> BoxStream<'static, Result<RangeResponse, StoreError>> {
    let page = page.max(1);
    Box::pin(stream::unfold(Some((reader, request)), move |rest| async move {
        let (reader, mut request) = rest?;
        let whole = request.limit;
        request.limit = Some(whole.map_or(page, |limit| limit.min(page)));
        let response = match reader.range(request.clone()).await {
            Ok(response) => response,
            Err(error) => return Some((Err(error), None)),
        };
        let left = whole.map(|limit| limit - response.entries.len());
        let last = response.entries.last().filter(|_| response.more && left != Some(0));
        let next = last.map(|last| {
            let start = KeyRange::key(last.key.clone()).end.unwrap_or_default();
            let range = KeyRange { start, end: request.range.end.clone() };
            let at = request.revision.filter(|at| *at > 0).unwrap_or(response.revision);
            RangeRequest { range, revision: Some(at), limit: left, ..request }
        });
        Some((Ok(response), next.map(|next| (reader, next))))
    }))
}
