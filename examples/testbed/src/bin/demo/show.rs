//! What the person in front of the screen sees.

use std::{io::Write as _, time::Instant};

use meshwright_testbed::WorldError;

/// Status when the output is read no longer: not every step was shown.
const UNREAD: i32 = 1;

/// Prints steps, and what each of them proved.
#[derive(Debug)]
pub(crate) struct Show {
    begin: Instant,
    step: usize,
    steps: usize,
}

impl Show {
    pub(crate) fn new(steps: usize) -> Self {
        Self {
            begin: Instant::now(),
            step: 0,
            steps,
        }
    }

    /// Begins a step.
    pub(crate) fn step(&mut self, title: &str) {
        self.step += 1;
        line(format!(
            "\n[{}/{}] {title}   ({:.1} s)",
            self.step,
            self.steps,
            self.begin.elapsed().as_secs_f32()
        ));
    }

    /// Says what is done.
    #[expect(clippy::unused_self, reason = "reads like the other verbs")]
    pub(crate) fn does(&self, text: impl AsRef<str>) {
        line(format!("      · {}", text.as_ref()));
    }

    /// Shows something as it is.
    #[expect(clippy::unused_self, reason = "reads like the other verbs")]
    pub(crate) fn quotes(&self, text: impl AsRef<str>) {
        for quoted in text.as_ref().lines() {
            line(format!("          {quoted}"));
        }
    }

    /// Says what was proved, or fails with it.
    #[expect(clippy::unused_self, reason = "reads like the other verbs")]
    pub(crate) fn proves(&self, fact: bool, text: impl AsRef<str>) -> Result<(), WorldError> {
        let text = text.as_ref();
        if fact {
            line(format!("      ✓ {text}"));
            Ok(())
        } else {
            line(format!("      ✗ {text}"));
            Err(WorldError::new(format!("prove: {text}")))
        }
    }

    /// Says how the demo ended.
    pub(crate) fn end(&self, text: &str) {
        line(format!(
            "\n{text}   ({:.1} s)",
            self.begin.elapsed().as_secs_f32()
        ));
    }
}

/// Prints a line. When nobody reads any more (`demo | head`), the mesh ends with this process.
pub(crate) fn line(text: impl AsRef<str>) {
    if writeln!(std::io::stdout(), "{}", text.as_ref()).is_err() {
        std::process::exit(UNREAD);
    }
}
