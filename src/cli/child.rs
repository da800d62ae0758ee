//! The command that `convoy agent` runs.

use std::{
    ffi::OsString,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    process::{self, Command},
    signal::unix::{self, SignalKind},
};

/// A running command with our standard streams, in a process group of its own: Ctrl-C in a terminal goes to the whole
/// foreground group, and would end the command before it was drained.
#[derive(Debug)]
pub(super) struct Child {
    process: process::Child,
    group: Option<Pid>,
    name: String,
}

impl Child {
    pub(super) fn spawn(command: &[OsString]) -> anyhow::Result<Self> {
        let (program, arguments) = command.split_first().context("there is no command to run")?;
        let name = program.to_string_lossy().into_owned();
        let process = Command::new(program).args(arguments).process_group(0).kill_on_drop(true).spawn();
        let process = process.with_context(|| format!("cannot run {name:?}"))?;
        let group = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { process, group, name })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Waits for its end. Cancel safe.
    pub(super) async fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        self.process.wait().await.context("cannot wait for the command")
    }

    /// Sends it, and what it started, a signal; it may have ended.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // The only errors are that nobody is left, or that it became another user: nothing can be done about it.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Asks it to stop and waits; kills it when the time is over.
    pub(super) async fn stop(&mut self, signal: Signal, within: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(signal);
        if let Ok(status) = tokio::time::timeout(within, self.wait()).await {
            return status;
        }
        self.signal(Signal::KILL);
        self.wait().await
    }
}

/// A command's status as ours: its code, or 128 and the signal that ended it, as shells have it.
pub(super) fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Whether the command ended because of this signal.
pub(super) fn ended_by(status: ExitStatus, signal: Signal) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(signal.as_raw())
}

/// The signals that ask us to stop.
#[derive(Debug)]
pub(super) struct StopSignals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
}

impl StopSignals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| unix::signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[tokio::test]
    async fn a_command_ends_with_its_status() {
        for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143)] {
            let status = Child::spawn(&command(&["sh", "-c", script])).expect("a shell").wait().await.expect("it ends");
            assert_eq!(format!("{:?}", exit_code(status)), format!("{:?}", ExitCode::from(code)), "{script}");
        }
        let error = Child::spawn(&command(&["/no/such/program"])).expect_err("no program");
        assert!(format!("{error:#}").contains("cannot run \"/no/such/program\""), "{error:#}");
    }

    #[tokio::test]
    async fn who_does_not_stop_is_killed() {
        let mut polite = Child::spawn(&command(&["sleep", "60"])).expect("sleep");
        let status = polite.stop(Signal::TERM, Duration::from_secs(20)).await.expect("it stops");
        assert!(ended_by(status, Signal::TERM));
        // To go on is not what it is told to end by.
        let mut deaf = Child::spawn(&command(&["sleep", "60"])).expect("sleep");
        let status = deaf.stop(Signal::CONT, Duration::from_millis(10)).await.expect("it is killed");
        assert!(ended_by(status, Signal::KILL));
    }
}
