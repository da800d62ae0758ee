//! xDS: what each client has asked for, and what it is sent. `session` is the protocol, pure; `cache` the resources and
//! the index of who is subscribed; `fanout` leads changes to sessions; `stream` and `server` are the shells.

pub mod admission;
pub mod barrier;
pub mod cache;
pub mod codec;
pub mod convergence;
pub mod csds;
mod delta;
mod departed;
pub mod explain;
pub mod fanout;
mod fetch;
pub mod full;
pub mod health;
pub mod held;
pub mod holdings;
pub mod index;
pub mod lrs;
mod nack;
pub mod name_set;
pub mod node;
pub mod protocol;
pub mod reflection;
pub mod request;
pub mod resource;
mod response;
mod rest;
mod resume;
pub mod server;
mod services;
pub mod session;
pub mod shared_view;
pub mod sharing;
mod sotw;
pub mod standing;
pub mod status;
pub mod stream;
mod subscription;
mod type_state;
pub mod view_catalog;

#[cfg(test)]
mod tests;
