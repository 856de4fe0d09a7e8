//! What a world on one machine could not do.

use std::{borrow::Cow, error::Error, fmt};

use meshwright_identity::Fault;

/// A step of building, running or taking down a world failed.
///
/// `Display` names the step; the cause is the source.
#[derive(Debug)]
pub struct WorldError {
    step: Cow<'static, str>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl WorldError {
    /// Creates an error of a step that has no deeper cause.
    pub fn new(step: impl Into<Cow<'static, str>>) -> Self {
        Self {
            step: step.into(),
            source: None,
        }
    }

    /// Creates an error of a step with its cause.
    pub fn caused(
        step: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            step: step.into(),
            source: Some(source.into()),
        }
    }

    /// Returns the step that failed.
    pub fn step(&self) -> &str {
        &self.step
    }

    /// Returns whether the step may be tried again: never, a world that failed half way is dropped.
    pub const fn is_safe_to_retry(&self) -> bool {
        false
    }

    /// Returns who has to act: always this machine.
    pub const fn fault(&self) -> Fault {
        Fault::Local
    }

    /// Returns the error and its causes in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for WorldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step)
    }
}

impl Error for WorldError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// Names the step that an error belongs to.
pub trait Step<T> {
    /// Turns the error into a [`WorldError`] of the given step.
    ///
    /// # Errors
    ///
    /// Fails when `self` failed.
    fn step(self, name: impl Into<Cow<'static, str>>) -> Result<T, WorldError>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Step<T> for Result<T, E> {
    fn step(self, name: impl Into<Cow<'static, str>>) -> Result<T, WorldError> {
        self.map_err(|source| WorldError::caused(name, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_the_step_and_its_cause_once() {
        let _trace = meshwright_testkit::trace();
        let error = WorldError::caused("make a bridge", std::io::Error::other("no permission"));
        assert_eq!(error.chain(), "make a bridge: no permission");
        meshwright_testkit::assert_chain_says_each_thing_once(&error);
    }
}
