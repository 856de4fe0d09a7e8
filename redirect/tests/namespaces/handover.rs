//! Replacing a process that shares a port, under load.

use crate::Test;
use crate::rig::{World, block_on, namespace, run};
use meshwright_redirect::Netns;
use meshwright_redirect::socket::{
    HandoverConfig, HandoverReport, ListenConfig, PortSharing, ReusePortHandover, Steering, listen,
    listeners,
};
use std::io::Read;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

pub const TESTS: &[Test] = &[
    (
        "replacement_under_load_loses_no_connection",
        &["ip"],
        under_load,
    ),
    (
        "replacement_without_privileges_loses_no_connection",
        &["ip"],
        unprivileged,
    ),
    ("lone_listener_drains_and_closes", &["ip"], lone),
];

const PORT: u16 = 7000;

fn shared(netns: &Netns) -> TcpListener {
    let config = ListenConfig::wildcard(PORT).sharing(PortSharing::Shared);
    listen(netns, &config).unwrap().socket
}

/// Stands for one process: answers each connection with its letter until told to drain.
async fn process(
    netns: Netns,
    listener: TcpListener,
    letter: u8,
    drain: oneshot::Receiver<()>,
) -> HandoverReport {
    let mut serving = JoinSet::new();
    let mut drain = drain;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                serving.spawn(answer(accepted.unwrap().0, letter));
            }
            Some(_) = serving.join_next() => (),
            _ = &mut drain => break,
        }
    }
    let handover = ReusePortHandover::new(netns, HandoverConfig::default());
    let report = handover
        .drain(listener, |stream, _peer| {
            serving.spawn(answer(stream, letter));
        })
        .await;
    while serving.join_next().await.is_some() {}
    report
}

async fn answer(mut stream: TcpStream, letter: u8) {
    // The probe that finds our index goes away at once.
    let _gone = stream.write_all(&[letter]).await;
}

/// Connects, reads one byte, closes; thousands of times from several threads.
struct Load {
    stop: Arc<AtomicBool>,
    by_letter: Arc<[AtomicUsize; 256]>,
    threads: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(netns: &Netns, address: [u8; 4]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let by_letter: Arc<[AtomicUsize; 256]> = Arc::new([const { AtomicUsize::new(0) }; 256]);
        let threads = (0..4)
            .map(|_| {
                let (netns, stop, count) =
                    (netns.clone(), Arc::clone(&stop), Arc::clone(&by_letter));
                thread::spawn(move || {
                    let mut errors = Vec::new();
                    let target: SocketAddr = (address, PORT).into();
                    while !stop.load(Ordering::Relaxed) {
                        let result = netns.run(|| StdStream::connect(target)).unwrap();
                        let mut byte = [0];
                        match result.and_then(|mut stream| stream.read_exact(&mut byte)) {
                            Ok(()) => {
                                count[usize::from(byte[0])].fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => errors.push(error.to_string()),
                        }
                    }
                    errors
                })
            })
            .collect();
        Self {
            stop,
            by_letter,
            threads,
        }
    }

    fn served(&self, letter: u8) -> usize {
        self.by_letter[usize::from(letter)].load(Ordering::Relaxed)
    }

    async fn until(&self, letter: u8, count: usize) {
        let goal = self.served(letter) + count;
        let reached = async {
            let mut look = tokio::time::interval(Duration::from_millis(2));
            while self.served(letter) < goal {
                look.tick().await;
            }
        };
        let limit = Duration::from_secs(30);
        let letters = || {
            (b'a'..=b'e')
                .map(|letter| self.served(letter))
                .collect::<Vec<_>>()
        };
        let reached = tokio::time::timeout(limit, reached).await;
        assert!(reached.is_ok(), "served {:?} and not {goal}", letters());
    }

    fn stop(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads).into_iter();
        threads.flat_map(|thread| thread.join().unwrap()).collect()
    }
}

/// Also when the test fails.
impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Waits until so many listeners share the port.
async fn members(netns: &Netns, count: usize) {
    let reached = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while listeners(netns, PORT).unwrap().len() != count {
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reached)
        .await
        .unwrap();
}

fn under_load() {
    let netns = namespace();
    // Loopback connections from one address use up its ports; those that ended are free at once.
    let reuse = || std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1");
    netns.run(reuse).unwrap().unwrap();
    block_on(async {
        let mut processes = JoinSet::new();
        let mut start = |letter: u8| {
            let (stop, stopped) = oneshot::channel();
            let listener = shared(&netns);
            processes.spawn(process(netns.clone(), listener, letter, stopped));
            stop
        };
        let a = start(b'a');
        let load = Load::start(&netns, [127, 0, 0, 1]);
        load.until(b'a', 1000).await;

        // The usual case: the older process leaves.
        let b = start(b'b');
        load.until(b'b', 200).await;
        assert_eq!(listeners(&netns, PORT).unwrap().len(), 2);
        a.send(()).unwrap();
        load.until(b'b', 1500).await;
        members(&netns, 1).await;

        // The successor is replaced in its turn, with the program of its predecessor in force.
        let c = start(b'c');
        load.until(b'c', 200).await;

        // The newer process leaves: a replacement that is taken back.
        c.send(()).unwrap();
        load.until(b'b', 1500).await;
        members(&netns, 1).await;

        // Three at once: the middle one leaves.
        let d = start(b'd');
        let _e = start(b'e');
        members(&netns, 3).await;
        d.send(()).unwrap();
        load.until(b'e', 500).await;
        b.send(()).unwrap();
        load.until(b'e', 500).await;
        members(&netns, 1).await;
        load.until(b'e', 500).await;

        let mut reports = Vec::new();
        while reports.len() < 4 {
            reports.push(processes.join_next().await.unwrap().unwrap());
        }
        // The last process must go on while the last connections end.
        let errors = tokio::task::spawn_blocking(|| load.stop()).await.unwrap();
        assert_eq!(errors.len(), 0, "{:?} of the lost", errors.first());
        for report in &reports {
            assert!(report.quiet, "{report:?}");
            assert!(
                matches!(report.steering, Steering::Steered { .. }),
                "{report:?}"
            );
        }
    });
}

/// Without a mark, or here without loopback, nobody can find out about the group's order.
fn unprivileged() {
    let world = World::new();
    let reuse = || std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1");
    world.outside.run(reuse).unwrap().unwrap();
    run(&world.pod, "ip", &["link", "set", "lo", "down"]);
    block_on(async {
        let mut processes = JoinSet::new();
        let mut start = |letter: u8| {
            let (stop, stopped) = oneshot::channel();
            let listener = shared(&world.pod);
            processes.spawn(process(world.pod.clone(), listener, letter, stopped));
            stop
        };
        let a = start(b'a');
        let load = Load::start(&world.outside, [10, 1, 0, 2]);
        load.until(b'a', 500).await;
        let _b = start(b'b');
        load.until(b'b', 100).await;
        a.send(()).unwrap();
        members(&world.pod, 1).await;
        load.until(b'b', 1000).await;
        let report = processes.join_next().await.unwrap().unwrap();
        assert!(matches!(report.steering, Steering::Failed(_)), "{report:?}");
        assert!(report.quiet, "{report:?}");
        let errors = tokio::task::spawn_blocking(|| load.stop()).await.unwrap();
        assert_eq!(errors.len(), 0, "{:?} of the lost", errors.first());
    });
}

fn lone() {
    let netns = namespace();
    block_on(async {
        let listener = shared(&netns);
        let waiting = netns
            .run(|| StdStream::connect(("127.0.0.1", PORT)))
            .unwrap()
            .unwrap();
        let mut handed = Vec::new();
        let handover = ReusePortHandover::new(netns.clone(), HandoverConfig::default());
        let report = handover
            .drain(listener, |stream, _| handed.push(stream))
            .await;
        assert!(matches!(report.steering, Steering::Alone), "{report:?}");
        assert_eq!((report.accepted, report.quiet, handed.len()), (1, true, 1));
        drop(waiting);
        // A program that another test starts holds our descriptors until it is executed.
        members(&netns, 0).await;
    });
}
