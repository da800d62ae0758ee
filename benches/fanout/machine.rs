//! The machine: what it is, and what the bench needs of it.

use std::{fs::read_to_string, path::Path, time::Duration};

use anyhow::Context;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};

/// 5 000 streams to each of two servers, and the servers' other files.
const FILES: u64 = 11_000;

/// Raises the limit of open files as far as it goes; children inherit it.
pub fn raise_file_limit() -> anyhow::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    anyhow::ensure!(maximum.is_none_or(|most| most >= FILES), "{FILES} open files are needed: raise `ulimit -Hn`");
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(())
}

/// A floor without a bench is of no use, however the bench ended.
pub fn end_with_parent() -> anyhow::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// The CPU time of a thread or process of this directory of `/proc`.
pub fn cpu(directory: &Path) -> anyhow::Result<Duration> {
    let text = read_to_string(directory.join("schedstat"))?;
    let nanoseconds = text.split_whitespace().next().and_then(|number| number.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.context("schedstat has no time in it")?))
}

/// That of this process's main thread, which does all its work.
pub fn own_cpu() -> anyhow::Result<Duration> {
    cpu("/proc/self".as_ref())
}

/// Processor, cores, kernel, date and revision, a line each.
pub fn describe() -> Vec<(&'static str, String)> {
    let model = read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(": ")?.1.to_owned())
    });
    let cores = std::thread::available_parallelism().map(|cores| cores.to_string());
    let kernel = read_to_string("/proc/sys/kernel/osrelease").map(|text| text.trim().to_owned());
    let load = read_to_string("/proc/loadavg").map(|text| text.trim().to_owned());
    vec![
        ("processor", model.unwrap_or_default()),
        ("cores", cores.unwrap_or_default()),
        ("kernel", kernel.unwrap_or_default()),
        ("load before", load.unwrap_or_default()),
        ("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("commit", output("git", &["describe", "--always", "--dirty", "--abbrev=10"])),
    ]
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
