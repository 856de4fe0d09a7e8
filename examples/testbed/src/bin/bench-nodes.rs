//! What two node proxies cost, against no mesh at all, on this machine and in the same minute.
//!
//! Two nodes, a pod on each, capture in the pods, TLS between them; beside them two pods outside
//! the mesh on the same switch. Every round measures each figure without and with the mesh, one
//! right after the other; the median of the rounds and the worst are printed. Ratios count:
//! absolute figures of a small machine move by half within an hour.
#![expect(clippy::print_stdout, reason = "the table is the output")]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use meshwright_testbed::{
    PodSpec, Space, Step, World, WorldError,
    apps::Behaviour,
    client::{Load, LoadKind, LoadSpec, Talk},
    dispatch, privilege,
};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};

const ECHO: u16 = 8080;
const SINK: u16 = 8081;
const HOSE: u16 = 8082;

/// Measures CPU per GB, per request and per connection of two node proxies.
#[derive(Debug, Parser)]
#[command(name = "bench-nodes", version)]
struct Options {
    /// Rounds; each measures everything without and with the mesh.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Measure only figures whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

fn main() -> ExitCode {
    if let Some(code) = dispatch() {
        return code;
    }
    let options = Options::parse();
    match privilege::obtain().and_then(|_| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

/// A figure: what is counted, and how work is made.
struct Figure {
    name: &'static str,
    unit: &'static str,
    /// How many counted things are one unit.
    per: f64,
    work: fn(&Path, Duration) -> Result<u64, WorldError>,
}

const FIGURES: [Figure; 6] = [
    Figure {
        name: "bulk up, 1 stream",
        unit: "GB",
        per: 1e9,
        work: |path, time| path.upload(1, time),
    },
    Figure {
        name: "bulk up, 8 streams",
        unit: "GB",
        per: 1e9,
        work: |path, time| path.upload(8, time),
    },
    Figure {
        name: "bulk down, 1 stream",
        unit: "GB",
        per: 1e9,
        work: Path::download,
    },
    Figure {
        name: "requests, 64 connections",
        unit: "1000 requests",
        per: 1e3,
        work: |path, time| path.load(LoadKind::Messages, 64, time),
    },
    Figure {
        name: "requests, 1 connection",
        unit: "1000 requests",
        per: 1e3,
        work: |path, time| path.load(LoadKind::Messages, 1, time),
    },
    Figure {
        name: "new connections, 4 clients",
        unit: "1000 connections",
        per: 1e3,
        work: |path, time| path.load(LoadKind::Connections, 4, time),
    },
];

/// One way from a client's pod to a server's.
struct Path {
    from: Space,
    to: IpAddr,
}

/// One measurement.
#[derive(Clone, Copy, Default)]
struct Sample {
    units: f64,
    seconds: f64,
    apps: f64,
    proxies: f64,
}

fn run(options: &Options) -> Result<(), WorldError> {
    let world = World::builder()
        .node("node-1")
        .node("node-2")
        .pod(PodSpec::new("client").on("node-1").enrolled())
        .pod(PodSpec::new("server").on("node-2").enrolled())
        .pod(PodSpec::new("plain-client"))
        .pod(PodSpec::new("plain-server"))
        .proxy_env("RUST_LOG", "error")
        .build()?;
    world.settled(world.pod("server")?, true)?;
    let mut apps = Vec::new();
    for name in ["server", "plain-server"] {
        let pod = world.pod(name)?;
        for (port, behaviour) in [
            (ECHO, Behaviour::Echo),
            (SINK, Behaviour::Sink),
            (HOSE, Behaviour::Hose),
        ] {
            apps.push(world.app(pod, port, behaviour)?);
        }
    }
    let path = |from: &str, to: &str| -> Result<Path, WorldError> {
        Ok(Path {
            from: world.pod(from)?.space().clone(),
            to: world.pod(to)?.at(0).ip(),
        })
    };
    let (plain, mesh) = (
        path("plain-client", "plain-server")?,
        path("client", "server")?,
    );
    println!(
        "{:<27}{:>17}{:>13}{:>13}{:>8}{:>16}{:>16}{:>8}",
        "figure", "unit", "no mesh /s", "mesh /s", "ratio", "CPU no mesh", "CPU proxies", "worst"
    );
    for figure in FIGURES.iter().filter(|figure| {
        let only = options.only.as_deref().unwrap_or_default();
        figure.name.contains(only)
    }) {
        let mut rounds = Vec::new();
        for _ in 0..options.rounds.max(1) {
            let time = Duration::from_secs_f64(options.seconds);
            let without = measure(&world, &plain, figure, time)?;
            rounds.push((without, measure(&world, &mesh, figure, time)?));
        }
        report(figure, &rounds);
    }
    for node in world.nodes() {
        let proxy = node.proxy()?;
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let mebibytes = proxy.process().memory()? as f64 / f64::from(1 << 20);
        println!(
            "memory of the proxy of {}: {mebibytes:.1} MiB (PSS)",
            node.name()
        );
    }
    drop(apps);
    Ok(())
}

fn measure(
    world: &World,
    path: &Path,
    figure: &Figure,
    time: Duration,
) -> Result<Sample, WorldError> {
    let cpu = || -> Result<(f64, f64), WorldError> {
        let mut proxies = 0.0;
        for node in world.nodes() {
            proxies += node.proxy()?.process().cpu()?.as_secs_f64();
        }
        Ok((own_cpu()?, proxies))
    };
    let (begin, (apps, proxies)) = (Instant::now(), cpu()?);
    let count = (figure.work)(path, time)?;
    let (apps_after, proxies_after) = cpu()?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let units = count as f64 / figure.per;
    Ok(Sample {
        units,
        seconds: begin.elapsed().as_secs_f64(),
        apps: apps_after - apps,
        proxies: proxies_after - proxies,
    })
}

/// CPU time of client and server, which are threads of this process.
fn own_cpu() -> Result<f64, WorldError> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).step("read the own CPU time")?;
    let total = usage.user_time() + usage.system_time();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let seconds = total.num_microseconds() as f64 / 1e6;
    Ok(seconds)
}

fn report(figure: &Figure, rounds: &[(Sample, Sample)]) {
    let of = |value: fn(&(Sample, Sample)) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let median = values.get(values.len() / 2).copied().unwrap_or_default();
        (median, values.last().copied().unwrap_or_default())
    };
    let plain = of(|(plain, _)| plain.units / plain.seconds).0;
    let mesh = of(|(_, mesh)| mesh.units / mesh.seconds).0;
    let ratio = of(|(plain, mesh)| (mesh.units / mesh.seconds) / (plain.units / plain.seconds)).0;
    let apps = of(|(plain, _)| 1e3 * plain.apps / plain.units).0;
    let (proxies, worst) = of(|(_, mesh)| 1e3 * mesh.proxies / mesh.units);
    println!(
        "{:<27}{:>17}{:>13.2}{:>13.2}{:>8.3}{:>13.1} ms{:>13.1} ms{:>8.1}",
        figure.name, figure.unit, plain, mesh, ratio, apps, proxies, worst
    );
}

impl Path {
    fn at(&self, port: u16) -> SocketAddr {
        (self.to, port).into()
    }

    fn load(&self, kind: LoadKind, clients: usize, time: Duration) -> Result<u64, WorldError> {
        let spec = LoadSpec::new(self.at(ECHO))
            .kind(kind)
            .talk(Talk::Echo(100))
            .clients(clients);
        let load = Load::start(&self.from, spec)?;
        thread::sleep(time);
        let report = load.finish();
        match report.failures.first() {
            None => Ok(report.done),
            Some(failure) => Err(WorldError::caused(
                "measure without errors",
                failure.clone(),
            )),
        }
    }

    fn upload(&self, streams: usize, time: Duration) -> Result<u64, WorldError> {
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            let clients: Vec<_> = (0..streams)
                .map(|_| {
                    scope.spawn(|| {
                        let mut stream = self.from.connect(self.at(SINK), 2 * time)?;
                        let block = vec![0x5a; 256 << 10];
                        while !stop.load(Ordering::Relaxed) {
                            stream.write_all(&block).step("upload")?;
                            sent.fetch_add(block.len() as u64, Ordering::Relaxed);
                        }
                        Ok::<(), WorldError>(())
                    })
                })
                .collect();
            thread::sleep(time);
            stop.store(true, Ordering::Relaxed);
            for client in clients {
                client
                    .join()
                    .map_err(|_panic| WorldError::new("upload"))??;
            }
            Ok(sent.load(Ordering::Relaxed))
        })
    }

    fn download(&self, time: Duration) -> Result<u64, WorldError> {
        let mut stream = self.from.connect(self.at(HOSE), 2 * time)?;
        let mut block = vec![0; 1 << 20];
        let (begin, mut received) = (Instant::now(), 0);
        while begin.elapsed() < time {
            received += stream.read(&mut block).step("download")? as u64;
        }
        Ok(received)
    }
}
