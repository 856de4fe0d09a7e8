//! Namespaces, links and programs for the tests.

use libtest_mimic::Failed;
use meshwright_redirect::Netns;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::thread;

/// What this machine lets tests do.
#[derive(Debug)]
pub struct Capabilities {
    namespaces: Result<(), String>,
}

impl Capabilities {
    /// Tries to make a network namespace, then the same inside a user namespace of our own.
    ///
    /// Must run while the process has one thread: the kernel moves nobody else into a user
    /// namespace.
    pub fn probe() -> Self {
        let as_is = thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join();
        if as_is.expect("the probe does not panic").is_ok() {
            return Self { namespaces: Ok(()) };
        }
        let (uid, gid) = (getuid(), getgid());
        let rootless = || -> Result<(), String> {
            let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET;
            unshare(flags).map_err(|errno| errno.to_string())?;
            let write = |file, text: String| fs::write(file, text).map_err(|e| e.to_string());
            write("/proc/self/setgroups", "deny".to_owned())?;
            write("/proc/self/uid_map", format!("0 {uid} 1"))?;
            write("/proc/self/gid_map", format!("0 {gid} 1"))
        };
        Self {
            namespaces: rootless(),
        }
    }

    /// Names what a test lacks.
    pub fn missing(&self, programs: &[&str]) -> Option<String> {
        if let Err(reason) = &self.namespaces {
            return Some(format!("network namespaces: {reason}"));
        }
        let missing = |program: &&&str| Command::new(program).arg("--version").output().is_err();
        programs
            .iter()
            .find(missing)
            .map(|program| format!("the program {program}"))
    }
}

/// Runs a test on a thread that nobody uses afterwards, whatever it does to the thread.
pub fn on_own_thread(body: fn()) -> Result<(), Failed> {
    let thread = thread::spawn(move || {
        // This harness does not capture output: traces only where they are asked for.
        let _trace = std::env::var_os("RUST_LOG").map(|_| meshwright_testkit::trace());
        body();
    });
    thread.join().map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
        Failed::from(text.unwrap_or_else(|| "panicked".to_owned()))
    })
}

/// Makes a namespace whose loopback is up.
pub fn namespace() -> Netns {
    let made = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace is made");
        Netns::current().expect("the new namespace is opened")
    });
    let netns = made.join().expect("the thread that makes a namespace");
    run(&netns, "ip", &["link", "set", "lo", "up"]);
    // Addresses are usable at once instead of after a second of duplicate detection.
    let no_dad = || fs::write("/proc/sys/net/ipv6/conf/default/dad_transmits", "0");
    netns
        .run(no_dad)
        .expect("the namespace is entered")
        .expect("the kernel has IPv6");
    netns
}

/// Runs a program inside a namespace and gives its output.
#[track_caller]
pub fn run(netns: &Netns, program: &str, arguments: &[&str]) -> String {
    let output = netns
        .run(|| Command::new(program).args(arguments).output())
        .expect("the namespace is entered")
        .expect("the program starts");
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("programs print text")
}

/// A pod and the rest of the world, joined by a link: `10.1.0.2` and `10.1.0.1`,
/// `fd00:1::2` and `fd00:1::1`.
#[derive(Debug)]
pub struct World {
    pub pod: Netns,
    pub outside: Netns,
}

impl World {
    pub fn new() -> Self {
        let (pod, outside) = (namespace(), namespace());
        let path = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            outside.as_fd().as_raw_fd()
        );
        let link = [
            "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &path,
        ];
        run(&pod, "ip", &link);
        for (netns, host) in [(&pod, 2), (&outside, 1)] {
            let v4 = format!("10.1.0.{host}/24");
            let v6 = format!("fd00:1::{host}/64");
            run(netns, "ip", &["addr", "add", &v4, "dev", "eth0"]);
            run(netns, "ip", &["addr", "add", &v6, "dev", "eth0", "nodad"]);
            run(netns, "ip", &["link", "set", "eth0", "up"]);
        }
        run(&pod, "ip", &["route", "add", "default", "via", "10.1.0.1"]);
        run(
            &pod,
            "ip",
            &["-6", "route", "add", "default", "via", "fd00:1::1"],
        );
        // The kernel makes a new IPv6 address a local one a little later.
        for (netns, address) in [(&pod, "fd00:1::2"), (&outside, "fd00:1::1")] {
            let is_local = |_: &u32| {
                let route = run(netns, "ip", &["-6", "route", "get", address]);
                route.starts_with("local")
            };
            assert!((0..1000).any(|n| is_local(&n)), "{address} is not local");
        }
        Self { pod, outside }
    }
}

/// Runs a future on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime is made");
    runtime.block_on(future)
}
