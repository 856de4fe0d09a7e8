//! What it costs, in figures of this machine and this minute.

use std::time::{Duration, Instant};

use meshwright_testbed::{
    WorldError,
    client::{Load, LoadKind, LoadSpec, Talk},
};

use crate::{
    mesh::{Mesh, PORT},
    show::Show,
};

/// Length of one measurement.
const MEASURE: Duration = Duration::from_millis(1500);

/// One measurement of a way to call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    done: u64,
    failed: u64,
    median: Duration,
    worst: Duration,
    seconds: f64,
}

/// Measurements of one state of the mesh.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    requests: Sample,
    connections: Sample,
}

/// Measures requests on one connection, and one connection for every request, from `sleep` to
/// `helloworld-v1` on the other node.
pub(crate) fn measure(mesh: &Mesh) -> Result<Figures, WorldError> {
    Ok(Figures {
        requests: sample(mesh, LoadKind::Messages)?,
        connections: sample(mesh, LoadKind::Connections)?,
    })
}

fn sample(mesh: &Mesh, kind: LoadKind) -> Result<Sample, WorldError> {
    let spec = LoadSpec::new(mesh.hello("v1")?.at(PORT))
        .kind(kind)
        .talk(Talk::Http);
    let begin = Instant::now();
    let load = Load::start(mesh.sleep()?.space(), spec)?;
    std::thread::sleep(MEASURE);
    let report = load.finish();
    Ok(Sample {
        done: report.done,
        failed: report.failed,
        median: report.quantile(0.5),
        worst: report.quantile(0.99),
        seconds: begin.elapsed().as_secs_f64(),
    })
}

/// Prints both states side by side.
pub(crate) fn print(
    show: &mut Show,
    mesh: &Mesh,
    before: &Figures,
    after: &Figures,
) -> Result<(), WorldError> {
    show.step("Figures of this machine, one client");
    show.quotes(format!(
        "{:<34} {:>12} {:>12}",
        "sleep → helloworld-v1, other node", "plain text", "in the mesh"
    ));
    for (name, plain, mesh) in [
        ("requests, one connection", before.requests, after.requests),
        (
            "requests, a connection each",
            before.connections,
            after.connections,
        ),
    ] {
        show.quotes(format!("{name:<34} {:>12} {:>12}", plain.done, mesh.done));
        show.quotes(format!(
            "{:<34} {:>12} {:>12}",
            "  per second",
            plain.rate(),
            mesh.rate()
        ));
        show.quotes(format!(
            "{:<34} {:>12} {:>12}",
            "  time, median",
            micros(plain.median),
            micros(mesh.median)
        ));
        show.quotes(format!(
            "{:<34} {:>12} {:>12}",
            "  time, 99 %",
            micros(plain.worst),
            micros(mesh.worst)
        ));
    }
    for node in mesh.world.nodes() {
        let proxy = node.proxy()?;
        let metrics = proxy.metrics()?;
        let total = |name: &str| metrics.sum(name, &[]);
        show.quotes(format!(
            "proxy of {}: {:.0} connections, {:.0} B received, {:.0} B sent, {:.1} MiB of memory, {:.2} s of CPU",
            node.name(),
            total("istio_tcp_connections_opened_total"),
            total("istio_tcp_received_bytes_total"),
            total("istio_tcp_sent_bytes_total"),
            mebibytes(proxy.process().memory()?),
            proxy.process().cpu()?.as_secs_f64(),
        ));
    }
    let failed = after.requests.failed + after.connections.failed;
    show.proves(failed == 0, "no request of the measurements failed")
}

impl Sample {
    fn rate(&self) -> String {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = self.done as f64 / self.seconds;
        format!("{rate:.0}")
    }
}

fn micros(time: Duration) -> String {
    format!("{} µs", time.as_micros())
}

fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    mebibytes
}
