//! xDS: what each client has asked for, and what it is sent. `session` is the protocol, pure; `cache` the resources and
//! the index of who is subscribed; `fanout` leads changes to sessions; `stream` and `server` are the shells.

pub mod barrier;
pub mod cache;
pub mod codec;
pub mod convergence;
pub mod csds;
mod delta;
mod departed;
pub mod fanout;
pub mod health;
pub mod holdings;
mod nack;
pub mod node;
pub mod protocol;
pub mod reflection;
pub mod resource;
mod response;
pub mod server;
pub mod session;
mod sotw;
pub mod standing;
pub mod status;
pub mod stream;
mod subscription;
mod type_state;

#[cfg(test)]
mod tests;
