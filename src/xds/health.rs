//! gRPC health of the xDS port: of all (""), and of each service by its name. A port is opened with the state loaded,
//! so it serves from its first moment; when Convoy stops it says so, and then ends the watches, which would hold their
//! connections open.

use std::time::Duration;

use tokio::sync::watch;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health, HealthServer},
    server::{HealthReporter, health_reporter},
};

use super::server::service_names;

/// How long a watch may take to hear of the stop.
const FAREWELL: Duration = Duration::from_millis(500);

/// The service, and what to run beside it until Convoy has stopped.
pub async fn service(stopping: watch::Receiver<bool>) -> (HealthServer<impl Health>, impl Future<Output = ()> + Send) {
    let (reporter, service) = health_reporter();
    set(&reporter, ServingStatus::Serving).await;
    (service, say_farewell(reporter, stopping))
}

fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once("").chain(service_names())
}

async fn set(reporter: &HealthReporter, status: ServingStatus) {
    for name in names() {
        reporter.set_service_status(name, status).await;
    }
}

async fn say_farewell(mut reporter: HealthReporter, mut stopping: watch::Receiver<bool>) {
    // An error is the sender's end, which is a stop as well.
    let _ = stopping.wait_for(|stopping| *stopping).await;
    set(&reporter, ServingStatus::NotServing).await;
    tokio::time::sleep(FAREWELL).await;
    for name in names() {
        reporter.clear_service_status(name).await;
    }
}
