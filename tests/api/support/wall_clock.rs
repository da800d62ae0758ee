//! A wall clock that a test steps for one child process (`wall_clock.c`). It is compiled with `cc`, with which rustc links.

use std::{
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The clock's step, in a file that the child's preloaded library reads.
#[derive(Debug)]
pub struct WallClock {
    directory: tempfile::TempDir,
    step: std::fs::File,
}

impl WallClock {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let step = std::fs::File::create(directory.path().join("step")).expect("a file");
        let clock = Self { directory, step };
        clock.step_to(0);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api/support/wall_clock.c");
        let mut compiled = Command::new("cc");
        compiled.args(["-shared", "-fPIC", "-O1", "-o"]).arg(clock.library()).arg(source);
        assert!(compiled.status().expect("cc runs").success(), "cc does not compile it");
        clock
    }

    fn library(&self) -> PathBuf {
        self.directory.path().join("wall_clock.so")
    }

    /// From now on the wall clock goes so many seconds before the real one; behind it if negative.
    pub fn step_to(&self, seconds: i64) {
        self.step.write_all_at(&seconds.to_ne_bytes(), 0).expect("written");
    }

    /// What the child's environment needs.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", self.library()), ("CONVOY_TEST_CLOCK", self.directory.path().join("step"))]
    }
}
