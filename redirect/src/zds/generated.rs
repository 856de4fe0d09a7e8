//! Code generated from `proto/`; a test compares it.

pub(crate) mod istio_workload_zds;
