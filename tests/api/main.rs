//! The public API and the xDS ports over real sockets, as agents, operators, proxies and strangers meet them. One
//! binary; modules by concern.

mod support;

mod ads;
mod beyond_json;
mod cards;
mod checks;
mod clock_steps;
mod durability;
mod expiry;
mod fencing;
mod garbage;
mod health;
mod histories;
mod intake;
mod leases;
mod limits;
mod paths;
mod proxies;
mod query;
mod refusals;
mod registration;
mod resources;
mod services;
mod start;
mod watch;
mod watch_selectors;
mod watch_slow;
