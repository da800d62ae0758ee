//! A small disk of its own: to be filled, and to be made read-only.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

/// Set where the tests must not be left out.
const REQUIRED: &str = "CONVOY_TEST_NAMESPACES_REQUIRED";
const FILLER: &str = "filler";

/// Dropping it unmounts it.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// A disk of so many MiB there. None where nothing can be mounted, which is said; if the tests are required, it fails.
    pub fn mount(at: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir_all(at).expect("a directory");
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "convoy-test"], at);
        let Err(why) = mounted else { return Some(Self(at.to_owned())) };
        assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, and {why}");
        // Straight to where the runner does not hold it back: nobody is to think that it ran.
        writeln!(std::io::stderr(), "LEFT OUT: a disk's faults, since {why}").expect("standard error is there");
        None
    }

    /// Leaves no room on it.
    pub fn fill(&self) {
        let mut filler = OpenOptions::new().create(true).append(true).open(self.0.join(FILLER)).expect("a file");
        let full = loop {
            if let Err(error) = filler.write_all(&[0; 1024]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }

    pub fn make_room(&self) {
        fs::remove_file(self.0.join(FILLER)).expect("removed");
    }

    /// Nobody may have a file open on it for writing.
    pub fn set(&self, mode: &str) {
        mount(&["-o", &format!("remount,{mode}")], &self.0).expect("mounted anew");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still uses it has been killed, and is about to end.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> Result<(), String> {
    let output = Command::new("mount").args(arguments).arg(at).output();
    let output = output.map_err(|error| format!("the command `mount` cannot be run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("mount {arguments:?}: {}", said.trim())) }
}
