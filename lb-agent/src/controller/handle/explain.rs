//! Who asks, and why things are as they are.

use super::{Command, Handle, OperatorError};
use crate::domain::{
    author::Author,
    explain::{Explained, Subject},
};

impl Handle {
    /// The same, with commands that are given by this person.
    pub fn by(&self, author: Author) -> Self {
        Self {
            author: Some(author),
            ..self.clone()
        }
    }

    /// Why the backends of these services have their weights, and what the kernel holds of them.
    pub async fn explain(&self, subject: Subject) -> Result<Vec<Explained>, OperatorError> {
        self.ask(|reply| Command::Explain(subject, reply)).await
    }
}
