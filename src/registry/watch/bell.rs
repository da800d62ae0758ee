//! Wakes watches on the thread that serves them.
//!
//! From another thread each would be woken by itself, with a call to the kernel, and run as soon as it is: one message, one
//! write. There, many are woken in a row and run one after the other before their connections are, so that what is for one
//! connection is written together. They are woken a lot at a time: whoever else is served there waits for one lot.

use std::sync::Arc;

use tokio::{runtime::Handle, sync::mpsc, task::yield_now};

use super::inbox::Inbox;

/// So many are woken before others have their turn: well under a millisecond's work.
pub(super) const LOT: usize = 128;
/// How often it is rung before the matcher does.
const WAITING: usize = 64;

/// None is rung for again before it has taken what there was, so that no watch waits here twice.
#[derive(Clone, Debug)]
pub(super) struct Bell(mpsc::Sender<Vec<Arc<Inbox>>>);

impl Bell {
    /// Hangs where watches are served; it ends with the last who may ring.
    pub(super) fn hang(served: &Handle) -> Self {
        let (sender, rung) = mpsc::channel(WAITING);
        served.spawn(answer(rung));
        Self(sender)
    }

    /// Wakes those whose inbox has just got something; false if there is nobody to do it any more.
    pub(super) async fn ring(&self, some: Vec<Arc<Inbox>>) -> bool {
        some.is_empty() || self.0.send(some).await.is_ok()
    }
}

async fn answer(mut rung: mpsc::Receiver<Vec<Arc<Inbox>>>) {
    while let Some(some) = rung.recv().await {
        for lot in some.chunks(LOT) {
            lot.iter().for_each(|inbox| inbox.wake());
            yield_now().await;
        }
    }
}
