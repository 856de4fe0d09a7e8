//! What a large mesh costs: to apply at once, to change one workload of it, to look things up.
//!
//! `cargo bench -p meshwright-xds-client --bench apply`; with `-- --test` everything runs once on a
//! small mesh. Before the figures it prints the memory of the store per workload.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark"
)]

use std::{hint::black_box, net::SocketAddr, sync::Arc};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use meshwright_xds_client::{
    Handler, Reader, Resource, Store, Update,
    proto::workload::Address,
    route::{Source, outbound},
};
use prost::Message;
use rand::{SeedableRng, rngs::SmallRng};

#[path = "shared/mesh.rs"]
mod mesh;
use mesh::REPLICAS;

fn is_test() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

fn size() -> usize {
    if is_test() { 2_000 } else { 100_000 }
}

fn workload(n: usize, revision: &str) -> Resource {
    resource(mesh::workload(n, revision))
}

fn service(n: usize) -> Resource {
    resource(mesh::service(n))
}

fn resource((name, address): (String, Address)) -> Resource {
    Resource::new(name, address.encode_to_vec())
}

fn mesh(size: usize) -> Vec<Resource> {
    let services = (0..size / REPLICAS).map(service);
    (0..size)
        .map(|n| workload(n, "v1"))
        .chain(services)
        .collect()
}

fn filled(resources: &[Resource]) -> (Store, Reader) {
    let (mut store, reader) = Store::new(Some("node-7"));
    assert!(store.apply(Update::new(resources, &[])).is_empty());
    (store, reader)
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_usize) * 4096
}

/// Processor time of this thread so far, in nanoseconds.
fn processor() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let spent = text.split(' ').next().and_then(|spent| spent.parse().ok());
    spent.unwrap_or(0)
}

fn memory() {
    let size = size();
    // Bodies are made one by one, as slices of a received message would be let go.
    let (mut store, reader) = Store::new(Some("node-7"));
    let before = resident();
    for n in 0..size {
        assert!(
            store
                .apply(Update::new(&[workload(n, "v1")], &[]))
                .is_empty()
        );
    }
    let workloads = resident().saturating_sub(before);
    for n in 0..size / REPLICAS {
        assert!(store.apply(Update::new(&[service(n)], &[])).is_empty());
    }
    let all = resident().saturating_sub(before);
    assert_eq!(reader.snapshot().workload_count(), size);
    println!(
        "memory: {} B per workload, {} B with a service per {REPLICAS} ({size} workloads, {:.1} MiB in all)",
        workloads / size,
        all / size,
        all as f64 / 1024.0 / 1024.0,
    );
}

fn apply(c: &mut Criterion) {
    memory();
    let size = size();
    let resources = mesh(size);
    let before = processor();
    let whole = filled(&resources);
    let spent = (processor() - before) / u64::try_from(resources.len()).unwrap();
    println!("processor time: {spent} ns per resource of a first message");
    drop(whole);
    let mut group = c.benchmark_group("apply");
    group.sample_size(10);
    group.bench_function("whole mesh", |b| {
        b.iter_batched(|| (), |()| filled(&resources), BatchSize::PerIteration);
    });
    let (mut store, reader) = filled(&resources);
    let versions = [workload(size / 2, "v1"), workload(size / 2, "v2")];
    let mut turn = 0;
    group.sample_size(50);
    // A reader holds the last state, so that every shard that changes is copied.
    group.bench_function("one workload of it", |b| {
        b.iter(|| {
            let held = reader.snapshot();
            turn += 1;
            let update = versions.get(turn % 2).map(std::slice::from_ref).unwrap();
            assert!(store.apply(Update::new(update, &[])).is_empty());
            held
        });
    });
    group.finish();
}

fn look_up(c: &mut Criterion) {
    let size = size();
    let (_store, reader) = filled(&mesh(size));
    let snapshot = reader.snapshot();
    let middle = u32::try_from(size / 2).unwrap();
    let address = std::net::Ipv4Addr::from(0x0a00_0000 + middle);
    let vip = std::net::Ipv4Addr::from(0x6440_0000 + middle / u32::try_from(REPLICAS).unwrap());
    let own = Arc::clone(snapshot.workload_by_address("", address.into()).unwrap());
    let mut group = c.benchmark_group("look up");
    group.bench_function("snapshot", |b| b.iter(|| reader.snapshot()));
    group.bench_function("workload by address", |b| {
        b.iter(|| {
            snapshot
                .workload_by_address("", black_box(address).into())
                .is_some()
        });
    });
    group.bench_function("service by address", |b| {
        b.iter(|| {
            snapshot
                .service_by_vip("", black_box(vip).into(), Some("ns-1"))
                .is_some()
        });
    });
    group.bench_function("workload by uid", |b| {
        b.iter(|| snapshot.workload_by_uid(black_box(own.uid())).is_some());
    });
    let source = Source::new(&own, "", address.into());
    let mut rng = SmallRng::seed_from_u64(1);
    group.bench_function("route to a service", |b| {
        b.iter(|| {
            outbound(
                &snapshot,
                &source,
                SocketAddr::new(black_box(vip).into(), 80),
                &mut rng,
            )
            .is_ok()
        });
    });
    group.finish();
}

criterion_group!(benches, apply, look_up);
criterion_main!(benches);
