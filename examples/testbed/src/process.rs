//! Processes of a world: started in a namespace, logged to a file, ended with the world.

mod usage;

use std::{
    fmt, fs,
    io::{Read, Seek, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Program, Space, Step, WorldError, http, program::HIDDEN, wait::eventually};

/// At most so many starts wait for the launcher; each takes a few milliseconds.
const STARTS: usize = 16;

/// Starts processes in namespaces, all from one thread.
///
/// The kernel ends a child when the *thread* that made it ends, so that thread lives as long as
/// the launcher.
#[derive(Clone, Debug)]
pub struct Launcher {
    orders: mpsc::SyncSender<Order>,
}

struct Order {
    space: Space,
    command: Command,
    started: mpsc::SyncSender<Result<Child, WorldError>>,
}

impl Launcher {
    /// Starts the launching thread. It ends with the last clone, and every process with it.
    ///
    /// # Errors
    ///
    /// Fails when no thread can be made.
    pub fn start() -> Result<Self, WorldError> {
        let (orders, inbox) = mpsc::sync_channel::<Order>(STARTS);
        thread::Builder::new()
            .name("launcher".into())
            .spawn(move || {
                for mut order in inbox {
                    let child = order.space.join().and_then(|()| {
                        let name = order.command.get_program().to_string_lossy().into_owned();
                        order.command.spawn().step(format!("start {name}"))
                    });
                    if order.started.send(child).is_err() {
                        tracing::debug!("nobody waits for a started process");
                    }
                }
            })
            .step("start the launching thread")?;
        Ok(Self { orders })
    }

    /// Starts a command in a namespace.
    ///
    /// # Errors
    ///
    /// Fails when the program is missing or the namespace cannot be entered.
    pub fn spawn(&self, space: &Space, command: Command) -> Result<Child, WorldError> {
        let (started, child) = mpsc::sync_channel(1);
        let order = Order {
            space: space.clone(),
            command,
            started,
        };
        let gone = || WorldError::new("reach the launching thread");
        self.orders.send(order).map_err(|_gone| gone())?;
        child.recv().map_err(|_gone| gone())?
    }

    /// Runs a command in a namespace to its end and returns what it printed.
    ///
    /// The command must have a deadline of its own.
    ///
    /// # Errors
    ///
    /// Fails when the program is missing or its output cannot be read.
    pub fn output(
        &self,
        space: &Space,
        mut command: Command,
    ) -> Result<std::process::Output, WorldError> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.spawn(space, command)?
            .wait_with_output()
            .step("read the output of a command")
    }
}

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    program: Program,
    name: String,
    args: Vec<String>,
    environment: Vec<(String, String)>,
}

impl ProcessSpec {
    /// Describes a process. The name is that of its log file.
    pub fn new(program: Program, name: impl Into<String>) -> Self {
        Self {
            program,
            name: name.into(),
            args: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable; a later value replaces an earlier one. Nothing else of the environment is
    /// inherited but `PATH`.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.into()));
        self
    }

    /// Removes a variable.
    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    fn command(&self, dir: &Path) -> Result<Command, WorldError> {
        let log = dir.join(format!("{}.log", self.name));
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .step(format!("open {}", log.display()))?;
        let errors = log.try_clone().step("share a log file")?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(HIDDEN)
            .arg(self.program.argument())
            .arg(std::process::id().to_string())
            .args(&self.args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        Ok(command)
    }
}

/// A running process of a world. It is killed when this is dropped.
pub struct Process {
    name: String,
    pid: u32,
    space: Space,
    child: Arc<Mutex<Child>>,
    log: PathBuf,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

impl Process {
    /// Starts a process in a namespace. Its log is `<name>.log` in the folder.
    ///
    /// # Errors
    ///
    /// Fails when the log cannot be opened or the process cannot be made.
    pub fn start(
        launcher: &Launcher,
        space: &Space,
        dir: &Path,
        spec: &ProcessSpec,
    ) -> Result<Self, WorldError> {
        let child = launcher.spawn(space, spec.command(dir)?)?;
        Ok(Self {
            name: spec.name.clone(),
            pid: child.id(),
            space: space.clone(),
            child: Arc::new(Mutex::new(child)),
            log: dir.join(format!("{}.log", spec.name)),
        })
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process id, as seen from this process.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the namespace it was started in.
    pub const fn space(&self) -> &Space {
        &self.space
    }

    /// Returns the file with everything it printed.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Returns everything it printed from an offset on.
    ///
    /// # Errors
    ///
    /// Fails when the file is gone.
    pub fn printed_since(&self, offset: u64) -> Result<String, WorldError> {
        let step = || format!("read {}", self.log.display());
        let mut file = fs::File::open(&self.log).step(step())?;
        file.seek(SeekFrom::Start(offset)).step(step())?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).step(step())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the length of the log now, for [`printed_since`](Self::printed_since).
    pub fn log_mark(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |meta| meta.len())
    }

    /// Returns the status if the process has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// Sends a signal. A process that has ended is left alone.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<(), WorldError> {
        let mut child = self.child();
        if child.try_wait().ok().flatten().is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.pid).step("read a process id")?;
        kill(Pid::from_raw(pid), signal).step(format!("send {signal} to {}", self.name))
    }

    /// Waits for the end.
    ///
    /// # Errors
    ///
    /// Fails when it has not ended within the deadline.
    pub fn wait(&self, deadline: Duration) -> Result<ExitStatus, WorldError> {
        eventually(&format!("the end of {}", self.name), deadline, || {
            self.ended()
        })
    }

    /// Ends the process at once, without any chance to clean up.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses.
    pub fn kill(&self) -> Result<(), WorldError> {
        let mut child = self.child();
        child.kill().step(format!("kill {}", self.name))?;
        child.wait().step(format!("wait for {}", self.name))?;
        Ok(())
    }

    /// Asks the process to end and waits for it.
    ///
    /// # Errors
    ///
    /// Fails when it has not ended within the deadline.
    pub fn terminate(&self, deadline: Duration) -> Result<ExitStatus, WorldError> {
        self.signal(Signal::SIGTERM)?;
        self.wait(deadline)
    }

    /// Waits until a path on a port of its namespace answers with status 200.
    ///
    /// # Errors
    ///
    /// Fails when the process ends first or the deadline passes; the error has the end of its log.
    pub fn ready(
        &self,
        addr: SocketAddr,
        path: &str,
        deadline: Duration,
    ) -> Result<Duration, WorldError> {
        let begin = Instant::now();
        let what = format!("readiness of {}", self.name);
        eventually(&what, deadline, || {
            if self.ended().is_some() {
                return Some(Err(()));
            }
            http::get(&self.space, addr, path)
                .ok()
                .filter(|answer| answer.status == 200)
                .map(|_ready| Ok(()))
        })
        .and_then(|outcome| {
            outcome.map_err(|()| WorldError::new(format!("keep {} running", self.name)))
        })
        .map_err(|error| {
            WorldError::caused(format!("start {}: {}", self.name, self.tail()), error)
        })?;
        Ok(begin.elapsed())
    }

    /// Returns the last lines of the log.
    pub fn tail(&self) -> String {
        let text = self.printed_since(0).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(5);
        lines.get(from..).unwrap_or_default().join(" | ")
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            tracing::debug!(%error, "a process had ended already");
        }
    }
}
