//! A process that is stopped and goes on: nothing that runs in it moves meanwhile.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard},
    task::{Poll, Waker},
};

use futures_util::{FutureExt, future::BoxFuture};

#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_shut: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with it")
    }

    pub fn is_open(&self) -> bool {
        !self.lock().is_shut
    }

    pub fn shut(&self) {
        self.lock().is_shut = true;
    }

    pub fn open(&self) {
        let mut state = self.lock();
        state.is_shut = false;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// What runs in the process.
    pub async fn behind(self, mut running: BoxFuture<'static, ()>) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.is_shut {
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
            drop(state);
            running.poll_unpin(context)
        })
        .await;
    }

    /// Until the process runs.
    pub async fn opened(&self) {
        self.clone().behind(Box::pin(std::future::ready(()))).await;
    }
}
