//! The agent at one moment, shared by all who look: the controller is asked once for many browsers,
//! and no more often than a small part of its time allows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use tokio::{sync::Mutex, time};

use super::refusal::Refusal;
use crate::{
    api::{proto, view::View},
    controller::Handle,
};

/// How long the controller may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a picture counts as the present.
const FRESH: Duration = Duration::from_secs(1);
/// So many times as long as it took, it counts in any case.
const PART: u32 = 10;
/// After that long without anybody who looks, it is forgotten: of 100,000 backends, it is large.
const KEPT: Duration = Duration::from_secs(15);

/// Everything that is shown of one moment.
pub(super) struct Picture {
    pub(super) view: View,
    pub(super) status: proto::StatusResponse,
    pub(super) services: Vec<proto::Service>,
    /// How long browsers should wait before they ask again.
    pub(super) pace: Duration,
}

/// Takes pictures, and keeps the last one.
#[derive(Clone)]
pub(super) struct Pictures {
    handle: Handle,
    last: Arc<Mutex<Option<Kept>>>,
}

struct Kept {
    picture: Arc<Picture>,
    until: Instant,
}

impl Pictures {
    pub(super) fn new(handle: Handle) -> Self {
        Self {
            handle,
            last: Arc::default(),
        }
    }

    /// The agent at this moment, or a second ago.
    ///
    /// # Errors
    ///
    /// The controller does not answer.
    pub(super) async fn current(&self) -> Result<Arc<Picture>, Refusal> {
        in_time(async {
            let mut last = self.last.lock().await;
            if let Some(kept) = last.as_ref().filter(|kept| Instant::now() < kept.until) {
                return Ok(kept.picture.clone());
            }
            let begun = Instant::now();
            let view = View::of(&self.handle).await?;
            let (status, services) = (view.status(), view.services());
            let age = FRESH.max(begun.elapsed() * PART);
            let picture = Arc::new(Picture {
                view,
                status,
                services,
                pace: age * 2,
            });
            *last = Some(Kept {
                picture: picture.clone(),
                until: Instant::now() + age,
            });
            self.forget_later(age + KEPT);
            Ok(picture)
        })
        .await
    }

    /// What was kept shows no more how things are.
    pub(super) async fn forget(&self) {
        *self.last.lock().await = None;
    }

    fn forget_later(&self, after: Duration) {
        let last = Arc::downgrade(&self.last);
        tokio::spawn(async move {
            time::sleep(after).await;
            if let Some(last) = last.upgrade() {
                let mut last = last.lock().await;
                // A newer one has a timer of its own.
                if last
                    .as_ref()
                    .is_some_and(|kept| kept.until + KEPT <= Instant::now())
                {
                    *last = None;
                }
            }
        });
    }
}

/// Bounds a question to the controller.
pub(super) async fn in_time<T>(
    answer: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| {
        Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "the agent's controller has not answered within {}; see the agent's log",
                humantime::format_duration(PATIENCE)
            ),
        ))
    })
}
