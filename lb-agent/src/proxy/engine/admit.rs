//! Who is served at all.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{StatusCode, request::Parts};

use super::{Arrival, Engine, answer::Refusal, serve::Marks, view::Service};
use crate::domain::http::exchange::Outcome;

impl Engine {
    /// Refuses whom the service does not admit, and who comes too often.
    pub(super) fn admit(
        &self,
        service: &Service,
        parts: &Parts,
        arrival: &Arrival,
        now: Instant,
        marks: &mut Marks,
    ) -> Result<(), Refusal> {
        let client = arrival.client.ip();
        if !service.admits(client) {
            let reason = "this client may not use the service";
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                Outcome::Forbidden,
                reason,
            ));
        }
        if service.rates.is_empty() {
            return Ok(());
        }
        let now = Duration::from_nanos(self.nanoseconds(now));
        let rated = service
            .rates
            .check(client, parts.uri.path(), &parts.headers, now);
        let Some(rated) = rated else {
            return Ok(());
        };
        marks.rated = Some((Arc::clone(&service.rates), rated));
        if rated.allowed {
            return Ok(());
        }
        let reason = "too many requests";
        Err(Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            Outcome::RateLimited,
            reason,
        ))
    }
}
