//! Convoy: an Envoy xDS control plane backed by its own service registry. `ARCHITECTURE.md` is the map.
//!
//! In reading order, each knowing only those above it:

pub mod any_json;
pub mod dirty;
pub mod model;
pub mod one_buffer;
mod prehashed;
pub mod telemetry;

pub mod envoy_json;

pub mod storage;

pub mod registry;

pub mod load;

pub mod checks;

pub mod translate;

pub mod xds;

pub mod peers;

pub mod api;

pub mod config;
pub mod server;

pub mod cli;
