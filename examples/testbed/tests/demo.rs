//! The demo as a person runs it: to its end, and ended in the middle.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use meshwright_testbed::{Step, WorldError, harness, wait::eventually};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Status of a demo that may not make namespaces.
const IMPOSSIBLE: i32 = 77;
/// A debug build on a busy machine; a release build needs fifteen seconds.
const WHOLE: Duration = Duration::from_secs(180);
const SOON: Duration = Duration::from_secs(60);

type Case = (&'static str, fn() -> Result<(), WorldError>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each of them loads the machine.
    arguments.test_threads = Some(1);
    let cases: [Case; 3] = [
        (
            "demo_proves_every_step_and_leaves_nothing_behind",
            demo_proves_every_step_and_leaves_nothing_behind,
        ),
        (
            "demo_that_is_killed_leaves_nothing_behind",
            demo_that_is_killed_leaves_nothing_behind,
        ),
        (
            "demo_that_nobody_reads_leaves_nothing_behind",
            demo_that_nobody_reads_leaves_nothing_behind,
        ),
    ];
    let trials = cases.map(|(name, case)| Trial::ignorable_test(name, move || run(case)));
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

fn run(case: fn() -> Result<(), WorldError>) -> Result<Completion, Failed> {
    let _trace = meshwright_testkit::trace();
    // The demo finds out itself what it may do, and says so with its status.
    let mut trial = Demo::start().map_err(|error| error.chain())?;
    let begun = eventually("the beginning of the demo", SOON, || {
        trial
            .ended()
            .or_else(|| trial.printed("[1/7]").then_some(0))
    });
    if begun.map_err(|error| error.chain())? == IMPOSSIBLE {
        return harness::unavailable(trial.output().trim());
    }
    drop(trial);
    case()
        .map(|()| Completion::Completed)
        .map_err(|error| Failed::from(error.chain()))
}

fn demo_proves_every_step_and_leaves_nothing_behind() -> Result<(), WorldError> {
    let mut demo = Demo::start()?;
    let status = eventually("the end of the demo", WHOLE, || demo.ended())?;
    let output = demo.output();
    assert_eq!(status, 0, "{output}");
    assert!(
        output.contains("every step proved what it claims"),
        "{output}"
    );
    assert_eq!(demo.left(), Left::default(), "{output}");
    Ok(())
}

fn demo_that_is_killed_leaves_nothing_behind() -> Result<(), WorldError> {
    // Where it has a folder only, where programs start, and where all of them work.
    for moment in ["", "app-notsleep.log", "4/7"] {
        for signal in [
            Signal::SIGKILL,
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
        ] {
            let mut demo = Demo::start()?;
            eventually("the moment", SOON, || {
                (demo.has(moment) || demo.printed(moment)).then_some(())
            })?;
            demo.signal(signal)?;
            demo.ends_without_a_trace()
                .step(format!("kill with {signal} at `{moment}`"))?;
        }
    }
    Ok(())
}

fn demo_that_nobody_reads_leaves_nothing_behind() -> Result<(), WorldError> {
    let mut demo = Demo::start_into(Stdio::piped())?;
    let output = demo.process.stdout.take();
    let mut output = output.ok_or_else(|| WorldError::new("read from the demo"))?;
    output.read_exact(&mut [0; 100]).step("read a little")?;
    drop(output);
    demo.ends_without_a_trace()?;
    let printed = demo.output();
    assert!(!printed.contains("panicked"), "{printed}");
    Ok(())
}

/// A running demo, whose files are in a folder of its own.
struct Demo {
    process: Child,
    files: tempfile::TempDir,
    log: tempfile::NamedTempFile,
}

/// What a demo has left behind.
#[derive(Debug, Default, Eq, PartialEq)]
struct Left {
    files: Vec<PathBuf>,
    /// Processes that work in its folder.
    processes: Vec<PathBuf>,
}

impl Demo {
    fn start() -> Result<Self, WorldError> {
        let log = tempfile::NamedTempFile::new().step("make a log")?;
        let output = appended(&log)?;
        Self::launch(log, output.into())
    }

    fn start_into(output: Stdio) -> Result<Self, WorldError> {
        let log = tempfile::NamedTempFile::new().step("make a log")?;
        Self::launch(log, output)
    }

    fn launch(log: tempfile::NamedTempFile, output: Stdio) -> Result<Self, WorldError> {
        let files = tempfile::tempdir().step("make a folder")?;
        let process = Command::new(env!("CARGO_BIN_EXE_demo"))
            .env("TMPDIR", files.path())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(appended(&log)?)
            .spawn()
            .step("start the demo")?;
        Ok(Self {
            process,
            files,
            log,
        })
    }

    /// Its status once it has ended; -1 after a signal.
    fn ended(&mut self) -> Option<i32> {
        let status = self.process.try_wait().ok()??;
        Some(status.code().unwrap_or(-1))
    }

    fn output(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    fn printed(&self, text: &str) -> bool {
        !text.is_empty() && self.output().contains(text)
    }

    /// Whether its folder is there, with a file of this name.
    fn has(&self, file: &str) -> bool {
        entries(self.files.path())
            .iter()
            .any(|folder| folder.join(file).exists())
    }

    fn signal(&self, signal: Signal) -> Result<(), WorldError> {
        let pid = i32::try_from(self.process.id()).step("read a process id")?;
        kill(Pid::from_raw(pid), signal).step("signal the demo")
    }

    fn ends_without_a_trace(&mut self) -> Result<(), WorldError> {
        eventually("the end of the demo", SOON, || self.ended())?;
        eventually("that nothing is left", SOON, || {
            (self.left() == Left::default()).then_some(())
        })
        .step(format!("leave nothing: {:?}", self.left()))
    }

    fn left(&self) -> Left {
        let works_here = |process: &PathBuf| {
            fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.files.path()))
        };
        Left {
            files: entries(self.files.path()),
            processes: entries(Path::new("/proc"))
                .into_iter()
                .filter(works_here)
                .collect(),
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        if let Err(error) = ended {
            assert!(
                std::thread::panicking(),
                "the demo cannot be ended: {error}"
            );
        }
    }
}

/// Both streams go to the end of one file.
fn appended(log: &tempfile::NamedTempFile) -> Result<fs::File, WorldError> {
    let mut options = fs::File::options();
    options.append(true).open(log.path()).step("open a log")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
