//! Who asks, and what their filters mean.

use tonic::{Request, Status};

use super::{
    super::{author::author, flows, naming::Naming, proto, refusal::find, splits::Splits},
    Service,
};
use crate::{controller::Handle, domain::flow::FlowFilter};

impl Service {
    /// A handle with which this request's author gives commands.
    pub(super) fn by<T>(&self, request: &Request<T>) -> Handle {
        match author(request) {
            Some(author) => self.handle.by(author),
            None => self.handle.clone(),
        }
    }

    /// Splits as this request's author sets them.
    pub(super) fn splits_by<T>(&self, request: &Request<T>) -> Splits {
        Splits {
            handle: self.by(request),
            fleet: self.fleet.clone(),
        }
    }

    /// The filter for flows, and the names for what it finds.
    pub(super) async fn flow_filter(
        &self,
        asked: Option<proto::FlowFilter>,
    ) -> Result<(FlowFilter, Naming), Status> {
        let asked = asked.unwrap_or_default();
        if let Some(service) = &asked.service {
            find(&self.handle.snapshot(), service)?;
        }
        let naming = Naming::new(&self.handle).await?;
        Ok((flows::filter(&asked, &naming)?, naming))
    }
}
