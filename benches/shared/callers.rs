//! So many callers, each with its next call when the last is answered.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// Calls a second.
pub async fn rate<F>(
    callers: usize,
    time: Duration,
    call: impl Fn() -> F + Clone + Send + 'static,
) -> anyhow::Result<f64>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let begun = Instant::now();
    let mut calling = JoinSet::new();
    for _ in 0..callers {
        let call = call.clone();
        calling.spawn(async move {
            let mut calls = 0_u32;
            while begun.elapsed() < time {
                call().await?;
                calls += 1;
            }
            anyhow::Ok(calls)
        });
    }
    let mut calls = 0;
    while let Some(caller) = calling.join_next().await {
        calls += caller??;
    }
    Ok(f64::from(calls) / begun.elapsed().as_secs_f64())
}
