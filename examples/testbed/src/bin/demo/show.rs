//! What the person in front of the screen sees.
#![expect(clippy::print_stdout, reason = "the demo's output is its purpose")]

use std::time::Instant;

use meshwright_testbed::WorldError;

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
        println!(
            "\n[{}/{}] {title}   ({:.1} s)",
            self.step,
            self.steps,
            self.begin.elapsed().as_secs_f32()
        );
    }

    /// Says what is done.
    #[expect(clippy::unused_self, reason = "reads like the other verbs")]
    pub(crate) fn does(&self, text: impl AsRef<str>) {
        println!("      · {}", text.as_ref());
    }

    /// Shows something as it is.
    #[expect(clippy::unused_self, reason = "reads like the other verbs")]
    pub(crate) fn quotes(&self, text: impl AsRef<str>) {
        for line in text.as_ref().lines() {
            println!("          {line}");
        }
    }

    /// Says what was proved, or fails with it.
    #[expect(clippy::unused_self, reason = "reads like the other verbs")]
    pub(crate) fn proves(&self, fact: bool, text: impl AsRef<str>) -> Result<(), WorldError> {
        let text = text.as_ref();
        if fact {
            println!("      ✓ {text}");
            Ok(())
        } else {
            println!("      ✗ {text}");
            Err(WorldError::new(format!("prove: {text}")))
        }
    }

    /// Says how the demo ended.
    pub(crate) fn end(&self, text: &str) {
        println!("\n{text}   ({:.1} s)", self.begin.elapsed().as_secs_f32());
    }
}

/// Prints a line outside any step.
pub(crate) fn line(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
}
