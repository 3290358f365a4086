//! The configuration, read again while the agent runs.

use tracing::{error, info, warn};

use super::{Controller, OperatorError};
use crate::domain::kernel::Kernel;

impl<K: Kernel> Controller<K> {
    /// Puts in force what can change while the agent runs; an invalid file changes nothing.
    pub(super) async fn reload(&mut self) -> Result<(), OperatorError> {
        let path = self.setup.config_path.clone();
        let in_force = self.setup.config.clone();
        let read =
            tokio::task::spawn_blocking(move || crate::source::file::reload(&path, &in_force));
        match read
            .await
            .map_err(|error| OperatorError::Failed(error.to_string()))?
        {
            Ok(reloaded) => {
                for sentence in &reloaded.at_next_start {
                    warn!("{sentence}");
                }
                self.reload_problem = None;
                self.setup.config = reloaded.config;
                self.desired.set_services(&self.setup.config.services);
                let allow = &self.setup.config.allow;
                if let Err(error) = self.blocks.configure(&mut self.kernel.kernel, allow) {
                    error!(%error, "the allow list could not be put in force");
                }
                self.reconcile().await;
                info!(
                    services = self.setup.config.services.len(),
                    "configuration read again"
                );
                Ok(())
            }
            Err(error) => {
                let problem = format!(
                    "the configuration was not reloaded, the former stays in force: {error}"
                );
                error!("{problem}");
                self.reload_problem = Some(problem.clone());
                Err(OperatorError::Refused(problem))
            }
        }
    }
}
