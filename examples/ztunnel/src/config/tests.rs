use std::io::Write;
use std::num::NonZeroUsize;
use std::time::Duration;

use meshwright_istio_surface::env::{InvalidSettings, Roots, Token, Variables};
use meshwright_istio_surface::logging::LogFormat;

use super::{
    Command, Config, Issuing, LocalSource, Machine, OriginalSource, PolicyMode, UnknownCommand,
};

fn machine(cpus: usize) -> Machine {
    Machine::new(NonZeroUsize::new(cpus).unwrap(), true)
}

/// Loads with a self-signed authority and no control plane, so that only `pairs` matter.
fn load(pairs: &[(&str, &str)]) -> Result<Config, InvalidSettings> {
    load_on(8, pairs)
}

fn load_on(cpus: usize, pairs: &[(&str, &str)]) -> Result<Config, InvalidSettings> {
    let alone = [("XDS_ADDRESS", ""), ("MESHWRIGHT_CA", "self-signed")];
    let variables = Variables::from_pairs(alone.iter().chain(pairs).copied());
    Config::load(
        &variables,
        &["proxy".into(), "ztunnel".into()],
        machine(cpus),
    )
}

fn faults(pairs: &[(&str, &str)]) -> Vec<String> {
    let faults = load(pairs).expect_err("the settings are refused");
    faults
        .faults()
        .iter()
        .map(|fault| fault.name.clone())
        .collect()
}

#[test]
fn settings_of_the_helm_chart_are_accepted_as_they_are() {
    let _trace = meshwright_testkit::trace();
    let mut root = tempfile::NamedTempFile::new().unwrap();
    root.write_all(b"-").unwrap();
    let path = root.path().to_str().unwrap();
    let variables = Variables::from_pairs([
        ("XDS_ADDRESS", "istiod.istio-system.svc:15012"),
        ("CA_ADDRESS", "istiod.istio-system.svc:15012"),
        ("XDS_ROOT_CA", path),
        ("CA_ROOT_CA", path),
        ("AUTH_TOKEN", path),
        ("RUST_LOG", "info"),
        ("RUST_BACKTRACE", "1"),
        ("ISTIO_META_CLUSTER_ID", "east"),
        ("CLUSTER_ID", "west"),
        ("INPOD_ENABLED", "true"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "30"),
        ("POD_NAME", "ztunnel-abc"),
        ("POD_NAMESPACE", "istio-system"),
        ("SERVICE_ACCOUNT", "ztunnel"),
        ("NODE_NAME", "node-a"),
        ("INSTANCE_IP", "10.0.0.7"),
        ("ZTUNNEL_CPU_LIMIT", "16"),
        ("ISTIO_META_ENABLE_HBONE", "true"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("XDS_HEADER_x-tenant", "blue"),
    ]);
    let config = Config::load(&variables, &["proxy".into(), "ztunnel".into()], machine(2)).unwrap();
    let control_plane = config.control_plane.unwrap();
    assert_eq!(control_plane.uri, "https://istiod.istio-system.svc:15012");
    assert_eq!(control_plane.roots, Roots::File(root.path().into()));
    assert_eq!(control_plane.token, Token::File(root.path().into()));
    assert_eq!(control_plane.headers.len(), 1);
    assert!(matches!(config.issuing, Issuing::IstioCa(_)));
    assert_eq!(
        &*config.node.cluster_id, "east",
        "the ISTIO_META_ form wins"
    );
    assert_eq!(config.node.metadata["ENABLE_HBONE"], "true");
    let own = config.node.own_workload().unwrap();
    assert_eq!(
        (&*own.namespace, &*own.service_account),
        ("istio-system", "ztunnel")
    );
    assert_eq!(config.drain.deadline, Duration::from_secs(25));
    assert_eq!(config.workers.get(), 4, "a quarter of sixteen CPUs");
    assert_eq!(config.arguments, "proxy ztunnel");
    assert_eq!(config.policy_mode, PolicyMode::IstioCompatible);
    assert_eq!(config.telemetry.format, LogFormat::Plain);
    assert_eq!(config.sockets.mark.unwrap().get(), 1337);
    assert_eq!(config.sockets.original_source, OriginalSource::BestEffort);
    assert!(config.handover.port_reuse && config.sockets.ipv6);
}

#[test]
fn ports_are_istios() {
    let _trace = meshwright_testkit::trace();
    let ports = load(&[]).unwrap().ports;
    let numbers = [
        ports.outbound.port(),
        ports.inbound_plaintext.port(),
        ports.inbound_hbone.port(),
        ports.admin.port,
        ports.stats.port(),
        ports.readiness.port(),
    ];
    assert_eq!(numbers, [15001, 15006, 15008, 15000, 15020, 15021]);
    assert!(ports.stats.ip().is_unspecified() && ports.stats.is_ipv6());
    assert_eq!(ports.admin.addresses().count(), 2);
    assert!(ports.admin.addresses().all(|addr| addr.ip().is_loopback()));
    assert!(ports.illegal.iter().copied().eq([15001, 15006, 15008]));
    let v4 = load(&[("IPV6_ENABLED", "false")]).unwrap().ports;
    assert!(v4.outbound.is_ipv4() && v4.admin.addresses().count() == 1);
}

#[test]
fn every_malformed_variable_is_named_in_one_refusal() {
    let _trace = meshwright_testkit::trace();
    let wrong = [
        ("IPV6_ENABLED", "1"),
        ("KEEPALIVE_TIME", "never"),
        ("KEEPALIVE_RETRIES", "500"),
        ("PACKET_MARK", "0x539"),
        ("HTTP2_FRAME_SIZE", "1000"),
        // RFC 9113 §6.9.1.
        ("HTTP2_STREAM_WINDOW_SIZE", "4294967296"),
        ("HTTP2_CONNECTION_WINDOW_SIZE", "1000"),
        ("POOL_MAX_STREAMS_PER_CONNECTION", "0"),
        ("POOL_UNUSED_RELEASE_TIMEOUT", "-5m"),
        ("ZTUNNEL_WORKER_THREADS", "many"),
        ("ZTUNNEL_RESOURCE_CPU_LIMIT", "2 cores"),
        ("INSTANCE_IP", "node-a"),
        ("SECRET_TTL", "1s"),
        ("LOG_FORMAT", "xml"),
        ("TRUST_DOMAIN", "Not A Domain"),
        ("RUST_LOG", "info,[["),
        ("ENABLE_ORIG_SRC", "maybe"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "30s"),
        ("ISTIO_METAJSON_X", "{"),
        ("MESHWRIGHT_POLICY_MODE", "lenient"),
        ("MESHWRIGHT_NO_SUCH", "1"),
        ("LOCAL_XDS_PATH", "/no/such/file.yaml"),
        ("PROXY_CONFIG", "[]"),
    ];
    let mut named = faults(&wrong);
    named.sort_unstable();
    let mut expected: Vec<_> = wrong.iter().map(|(name, _)| (*name).to_owned()).collect();
    expected.sort_unstable();
    assert_eq!(named, expected);
}

#[test]
fn missing_protection_refuses_to_start_and_missing_convenience_is_said() {
    let _trace = meshwright_testkit::trace();
    assert_eq!(faults(&[("CRL_PATH", "/etc/crl.pem")]), ["CRL_PATH"]);
    assert_eq!(
        faults(&[("COMPLIANCE_POLICY", "pqc")]),
        ["COMPLIANCE_POLICY"]
    );
    assert_eq!(
        faults(&[("COMPLIANCE_POLICY", "fips")]),
        ["COMPLIANCE_POLICY"]
    );
    assert_eq!(faults(&[("PROXY_MODE", "dedicated")]), ["PROXY_MODE"]);
    assert_eq!(faults(&[("ENABLE_PROXY", "false")]), ["ENABLE_PROXY"]);
    load(&[("CRL_PATH", ""), ("PROXY_MODE", "shared")]).unwrap();
    let config = load(&[
        ("ISTIO_META_DNS_CAPTURE", "false"),
        ("XDS_ON_DEMAND", "true"),
        ("UNSTABLE_ENABLE_SOCKS5", "true"),
        ("TLS12_ENABLED", "true"),
    ])
    .unwrap();
    let notes = config.notes.join("\n");
    for name in ["XDS_ON_DEMAND", "UNSTABLE_ENABLE_SOCKS5", "TLS12_ENABLED"] {
        assert!(notes.contains(name), "{notes}");
    }
    assert!(!notes.contains("DNS proxy"), "{notes}");
    assert!(config.ports.illegal.contains(&15080));
    let unset = load(&[]).unwrap().notes.join("\n");
    assert!(
        unset.contains("no DNS proxy"),
        "Istio's default would be on: {unset}"
    );
}

#[test]
fn drain_time_follows_the_grace_period_and_never_wraps() {
    let _trace = meshwright_testkit::trace();
    let drain = |pairs: &[(&str, &str)]| load(pairs).unwrap().drain.deadline.as_secs();
    let grace = |text| drain(&[("TERMINATION_GRACE_PERIOD_SECONDS", text)]);
    assert_eq!(drain(&[]), 5);
    assert_eq!(
        [grace("0"), grace("1"), grace("2"), grace("10")],
        [1, 1, 1, 9]
    );
    assert_eq!([grace("11"), grace("30")], [6, 25]);
    let both = [
        ("TERMINATION_GRACE_PERIOD_SECONDS", "30"),
        ("CONNECTION_TERMINATION_DEADLINE", "1m"),
    ];
    assert_eq!(drain(&both), 60);
    assert_eq!(
        faults(&[("TERMINATION_GRACE_PERIOD_SECONDS", "18446744073709551615")]).len(),
        1
    );
}

#[test]
fn worker_threads_follow_what_is_said_then_what_the_pod_may_use() {
    let _trace = meshwright_testkit::trace();
    let workers = |cpus, pairs: &[(&str, &str)]| load_on(cpus, pairs).unwrap().workers.get();
    assert_eq!(workers(2, &[]), 2);
    assert_eq!(workers(64, &[]), 16);
    assert_eq!(
        workers(64, &[("ZTUNNEL_RESOURCE_CPU_REQUEST", "20500m")]),
        21
    );
    assert_eq!(workers(64, &[("ZTUNNEL_RESOURCE_CPU_LIMIT", "1.5")]), 2);
    assert_eq!(workers(64, &[("ZTUNNEL_CPU_LIMIT", "12")]), 3);
    assert_eq!(workers(8, &[("ZTUNNEL_WORKER_THREADS", "50%")]), 4);
    assert_eq!(workers(8, &[("ZTUNNEL_WORKER_THREADS", "0")]), 8);
    assert_eq!(workers(8, &[("PROXY_CONFIG", "concurrency: 0")]), 8);
    let both = [
        ("PROXY_CONFIG", "concurrency: 3"),
        ("ZTUNNEL_WORKER_THREADS", "5"),
    ];
    assert_eq!(workers(8, &both), 5);
    assert_eq!(workers(8, &both[..1]), 3);
}

#[test]
fn user_timeout_is_two_minutes_unless_said_otherwise() {
    let _trace = meshwright_testkit::trace();
    let timeout = |pairs: &[(&str, &str)]| load(pairs).unwrap().sockets.user_timeout;
    assert_eq!(timeout(&[]), Some(Duration::from_secs(120)));
    assert_eq!(timeout(&[("USER_TIMEOUT_ENABLED", "false")]), None);
    let istios = [
        ("USER_TIMEOUT_ENABLED", "true"),
        ("KEEPALIVE_TIME", "180s"),
        ("KEEPALIVE_INTERVAL", "180"),
        ("KEEPALIVE_RETRIES", "9"),
    ];
    assert_eq!(timeout(&istios), Some(Duration::from_secs(180 * 10)));
    let off = load(&[("KEEPALIVE_ENABLED", "false")]).unwrap();
    assert_eq!(off.sockets.keepalive, None);
}

#[test]
fn self_signed_authority_is_announced_and_contradictions_are_refused() {
    let _trace = meshwright_testkit::trace();
    let config = load(&[("FAKE_CA", "true")]).unwrap();
    assert!(matches!(config.issuing, Issuing::SelfSigned));
    assert!(
        config
            .notes
            .iter()
            .any(|note| note.contains("DEVELOPMENT ONLY"))
    );
    assert_eq!(
        faults(&[
            ("FAKE_CA", "true"),
            ("MESHWRIGHT_CA", "istio"),
            ("CA_ADDRESS", "x")
        ]),
        ["FAKE_CA"]
    );
    assert_eq!(
        faults(&[("LOCAL_XDS", "{}"), ("LOCAL_XDS_PATH", "/etc/hostname")]),
        ["LOCAL_XDS_PATH"]
    );
    let local = load(&[("LOCAL_XDS", "workloads: []")]).unwrap().local;
    assert!(matches!(local, Some(LocalSource::Inline(text)) if text == "workloads: []"));
}

#[test]
fn ports_of_the_proxy_config_are_taken_and_must_differ() {
    let _trace = meshwright_testkit::trace();
    let ports = load(&[("PROXY_CONFIG", "{proxyAdminPort: 1500, statsPort: 1502}")]);
    let ports = ports.unwrap().ports;
    assert_eq!((ports.admin.port, ports.stats.port()), (1500, 1502));
    assert_eq!(
        faults(&[("PROXY_CONFIG", "statsPort: 15000")]),
        ["statsPort"]
    );
    assert_eq!(
        faults(&[("PROXY_CONFIG", "proxyAdminPort: 15008")]),
        ["proxyAdminPort"]
    );
}

#[test]
fn only_the_first_argument_is_looked_at() {
    let _trace = meshwright_testkit::trace();
    let parse = |words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        Command::parse(&words)
    };
    assert_eq!(parse(&[]), Ok(Command::Proxy));
    assert_eq!(parse(&["proxy", "ztunnel"]), Ok(Command::Proxy));
    assert_eq!(parse(&["version"]), Ok(Command::Version));
    assert_eq!(parse(&["help", "proxy"]), Ok(Command::Help));
    let word = "serve".to_owned();
    assert_eq!(parse(&["serve"]), Err(UnknownCommand { word }));
}

#[test]
fn dump_has_every_member_that_a_real_ztunnel_shows_and_no_secret() {
    let _trace = meshwright_testkit::trace();
    let recorded = include_str!("../../tests/data/config_dump-a.json");
    let recorded: serde_json::Value = serde_json::from_str(recorded).unwrap();
    let recorded = recorded["config"].as_object().unwrap();
    let root = tempfile::NamedTempFile::new().unwrap();
    let path = root.path().to_str().unwrap();
    let variables = Variables::from_pairs([
        ("XDS_ADDRESS", "https://10.90.0.1:15012"),
        ("CA_ADDRESS", "https://10.90.0.1:15012"),
        ("ALT_XDS_HOSTNAME", "istiod.istio-system.svc"),
        ("ALT_CA_HOSTNAME", "istiod.istio-system.svc"),
        ("XDS_ROOT_CA", path),
        ("CA_ROOT_CA", path),
        ("AUTH_TOKEN", "hunter2"),
        ("XDS_HEADER_authorization", "hunter2"),
        ("CA_HEADER_x-key", "hunter2"),
        ("IPV6_ENABLED", "false"),
        ("NODE_NAME", "node-a"),
        ("POD_NAME", "ztunnel-a"),
        ("POD_NAMESPACE", "istio-system"),
        ("SERVICE_ACCOUNT", "ztunnel"),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
        ("HTTP2_STREAM_WINDOW_SIZE", "4194304"),
        ("HTTP2_CONNECTION_WINDOW_SIZE", "16777216"),
        ("HTTP2_FRAME_SIZE", "1048576"),
        ("POOL_MAX_STREAMS_PER_CONNECTION", "100"),
        ("KEEPALIVE_TIME", "180"),
        ("KEEPALIVE_INTERVAL", "180"),
        ("KEEPALIVE_RETRIES", "9"),
        ("USER_TIMEOUT_ENABLED", "false"),
        ("ZTUNNEL_WORKER_THREADS", "2"),
    ]);
    let config = Config::load(&variables, &["proxy".into(), "ztunnel".into()], machine(2)).unwrap();
    let ours = config.to_json();
    assert!(!ours.to_string().contains("hunter2"), "{ours}");
    let ours = ours.as_object().unwrap();
    let keys = |map: &serde_json::Map<_, _>| map.keys().cloned().collect::<Vec<String>>();
    assert_eq!(keys(ours), keys(recorded));
    for (key, expected) in recorded {
        // No DNS proxy; other files; other order of a set; headers were set here.
        let differs = key.starts_with("dns")
            || key.ends_with("RootCert")
            || key.ends_with("Headers")
            || key == "illegalPorts"
            || key == "frameSize";
        if !differs {
            assert_eq!(ours[key], *expected, "{key}");
        }
    }
}
