//! Workloads and services from the wire: what is accepted can be found again and says what was sent.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use meshwright_xds_client::proto::workload::{Address, address::Type};
use meshwright_xds_client::workload::Store;
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    let Ok(address) = Address::decode(bytes) else {
        return;
    };
    let (mut store, reader) = Store::new(None);
    let name: Arc<str> = match &address.r#type {
        Some(Type::Workload(workload)) => workload.uid.as_str().into(),
        Some(Type::Service(service)) => {
            format!("{}/{}", service.namespace, service.hostname).into()
        }
        None => "nothing".into(),
    };
    let accepted = store.insert(&name, &address).is_ok();
    store.publish();
    let snapshot = reader.snapshot();
    if !accepted {
        assert_eq!(
            (snapshot.workload_count(), snapshot.service_count()),
            (0, 0),
            "half applied"
        );
        return;
    }
    match &address.r#type {
        Some(Type::Workload(sent)) => {
            let got = snapshot
                .workload_by_uid(&sent.uid)
                .expect("found by its name");
            assert_eq!(&**got.uid(), sent.uid);
            assert_eq!(got.name(), sent.name);
            assert_eq!(got.addresses().len(), sent.addresses.len());
            assert_eq!(got.capacity(), sent.capacity.unwrap_or(1));
            for (key, ports) in &sent.services {
                let membership = got.membership(key).expect("a member of what it says");
                for mapping in &membership.ports {
                    let sent = ports.ports.iter().any(|p| {
                        p.service_port == u32::from(mapping.service)
                            && p.target_port == u32::from(mapping.target)
                    });
                    assert!(sent, "a port that nobody sent");
                }
            }
        }
        Some(Type::Service(sent)) => {
            let got = snapshot.service(&name).expect("found by its name");
            for mapping in got.ports() {
                let sent = sent.ports.iter().any(|p| {
                    p.service_port == u32::from(mapping.service)
                        && p.target_port == u32::from(mapping.target)
                });
                assert!(sent, "a port that nobody sent");
            }
            for vip in got.vips() {
                assert!(
                    snapshot
                        .service_by_vip(&vip.network, vip.ip, Some(got.namespace()))
                        .is_some()
                );
            }
        }
        None => panic!("nothing was accepted"),
    }
    store.remove(&name);
    store.publish();
    let empty = reader.snapshot();
    assert_eq!(
        (empty.workload_count(), empty.service_count()),
        (0, 0),
        "something stays behind"
    );
});
