//! The block list: from request to order, and from there to replies.

use std::pin::Pin;

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    convert,
    fleet::Fleet,
    input::{self, Prefixes},
    proto,
    service::now_unix_ms,
};
use crate::controller::Handle;

/// Rules in one part of a list; the controller does other work between two parts.
const PAGE: usize = 4096;
/// Rules that can be asked for by what they dropped.
const MOST_LEADERS: usize = 1000;

/// A list, a page after another.
pub(super) type Pages =
    Pin<Box<dyn Stream<Item = Result<proto::ListBlocksResponse, Status>> + Send>>;

/// Adds rules.
pub(super) async fn add(
    handle: &Handle,
    fleet: &Fleet,
    request: Request<proto::AddBlocksRequest>,
) -> Result<Response<proto::AddBlocksResponse>, Status> {
    let proto::AddBlocksRequest {
        prefixes,
        options,
        fleet: of_fleet,
    } = request.into_inner();
    let prefixes = input::prefixes(&prefixes)?;
    let order = input::block_order(options)?;
    let (rules, notes) = if of_fleet {
        fleet.block(prefixes, order).await?
    } else {
        let blocked = handle.block_add(prefixes, order).await?;
        (blocked.rules, blocked.notes)
    };
    Ok(Response::new(proto::AddBlocksResponse {
        notes,
        rules: rules.iter().map(convert::block_rule).collect(),
        now_unix_ms: now_unix_ms(),
    }))
}

/// Removes rules.
pub(super) async fn delete(
    handle: &Handle,
    fleet: &Fleet,
    request: Request<proto::DeleteBlocksRequest>,
) -> Result<Response<proto::DeleteBlocksResponse>, Status> {
    let prefixes = input::prefixes(&request.get_ref().prefixes)?;
    let deleted = if request.get_ref().fleet {
        fleet.unblock(&prefixes).await? as u64
    } else {
        handle.block_del(prefixes).await? as u64
    };
    Ok(Response::new(proto::DeleteBlocksResponse { deleted }))
}

/// Lists `most` rules, those that dropped most first.
pub(super) async fn leaders(handle: &Handle, most: u64) -> Result<Pages, Status> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if most > MOST_LEADERS {
        return Err(Status::invalid_argument(format!(
            "at most {MOST_LEADERS} rules are listed by what they dropped, not {most}"
        )));
    }
    let entries = handle.block_leaders(most).await?;
    let page = proto::ListBlocksResponse {
        blocks: entries.iter().map(convert::block_entry).collect(),
        now_unix_ms: now_unix_ms(),
    };
    Ok(Box::pin(stream::iter([Ok(page)])))
}

/// Lists rules, a page at a time.
pub(super) fn list(handle: &Handle) -> Pages {
    let pages = stream::try_unfold((handle.clone(), None), |(handle, last)| async move {
        let entries = handle.block_list(last, PAGE).await?;
        let Some(end) = entries.last().map(|entry| entry.rule.prefix) else {
            return Ok(None);
        };
        let page = proto::ListBlocksResponse {
            blocks: entries.iter().map(convert::block_entry).collect(),
            now_unix_ms: now_unix_ms(),
        };
        Ok(Some((page, (handle, Some(end)))))
    });
    Box::pin(pages)
}

/// Adds the rules of a list, or puts them in the place of those imported before.
pub(super) async fn import(
    handle: &Handle,
    request: Request<Streaming<proto::ImportBlocksRequest>>,
) -> Result<Response<proto::ImportBlocksResponse>, Status> {
    let mut parts = request.into_inner();
    let mut prefixes = Prefixes::default();
    let mut first = None;
    while let Some(part) = parts.message().await? {
        if first.is_none() {
            first = Some((input::block_order(part.options)?, part.replace));
        }
        prefixes.extend(&part.prefixes)?;
    }
    let prefixes = prefixes.finish()?;
    let (order, replace) = first.unwrap_or_default();
    let blocked = handle.block_import(prefixes, order, replace).await?;
    Ok(Response::new(proto::ImportBlocksResponse {
        imported: blocked.count as u64,
        total: blocked.total as u64,
        notes: blocked.notes,
    }))
}
