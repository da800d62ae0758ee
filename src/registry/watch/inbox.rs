//! Where the matcher puts what a watch has to be told. It holds a bounded number of events; a watch that does not take
//! them in time is behind: it forgets them, and reads the log from where it stands, until it has caught up.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::{log::Entry, merge::Told, position::Position, seen::Seen, sizes::MAX_DUE};

#[derive(Debug)]
enum State {
    /// It reads the log; nothing is put here.
    Behind,
    /// Everything up to `from` it has read from the log.
    Following { from: Position, due: Vec<Told> },
    /// The matcher has ended.
    Closed,
}

#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    news: Notify,
}

/// What there is to take.
#[derive(Debug)]
pub(super) enum Taken {
    Behind,
    Due(Vec<Told>),
    Closed,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { state: Mutex::new(State::Behind), news: Notify::new() }
    }
}

impl Inbox {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().expect("nothing panics while it holds this lock"))
    }

    /// Whether it is to be woken: what it had, it has taken.
    pub(super) fn put(&self, entry: &Arc<Entry>, seen: Seen) -> bool {
        self.with(|state| match state {
            State::Following { from, due } if *from < entry.position => {
                if due.len() < MAX_DUE {
                    due.push(Told { entry: entry.clone(), seen });
                    return due.len() == 1;
                }
                *state = State::Behind;
                true
            }
            _ => false,
        })
    }

    pub(super) fn wake(&self) {
        self.news.notify_one();
    }

    pub(super) fn close(&self) {
        self.with(|state| *state = State::Closed);
        self.wake();
    }

    /// The matcher has missed something.
    pub(super) fn fall_behind(&self) {
        self.with(|state| match state {
            State::Closed => {}
            _ => *state = State::Behind,
        });
        self.wake();
    }

    pub(super) fn is_behind(&self) -> bool {
        self.with(|state| matches!(state, State::Behind))
    }

    pub(super) fn take(&self) -> Taken {
        self.with(|state| match state {
            State::Behind => Taken::Behind,
            State::Following { due, .. } => Taken::Due(std::mem::take(due)),
            State::Closed => Taken::Closed,
        })
    }

    /// Reads the log for a watch that is behind. `read` gives what it read, and where it follows from if that was all.
    /// Nothing can be put here between the two: what comes later is put here, what came before was read.
    pub(super) fn read<T>(&self, read: impl FnOnce() -> (T, Option<Position>)) -> T {
        self.with(|state| {
            let (value, caught_up) = read();
            if let (State::Behind, Some(from)) = (&*state, caught_up) {
                *state = State::Following { from, due: Vec::new() };
            }
            value
        })
    }

    pub(super) async fn news(&self) {
        self.news.notified().await;
    }
}
