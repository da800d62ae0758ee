//! A Python with gRPC.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::wheel;

const GRPCIO: &str = "grpcio==1.85.1";

/// The interpreter.
pub fn with_grpc() -> &'static Path {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let python = |environment: &Path| environment.join("bin/python");
    let works = |environment: &Path| {
        let mut command = Command::new(python(environment));
        command.args(["-c", "import grpc"]);
        command
    };
    match PYTHON.get_or_init(|| wheel::installed(GRPCIO, works).map(|environment| python(&environment))) {
        Ok(python) => python,
        Err(error) => panic!("this test needs Python 3 with venv and {GRPCIO}, and cannot have it:\n{error}"),
    }
}
