//! A Python with gRPC: a virtual environment under the target folder, made once.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

const GRPCIO: &str = "grpcio==1.85.1";

/// The interpreter.
pub fn with_grpc() -> &'static Path {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(install) {
        Ok(python) => python,
        Err(error) => panic!("this test needs Python 3 with venv and {GRPCIO}, and cannot have it:\n{error}"),
    }
}

fn install() -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(GRPCIO.replace("==", "-"));
    std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    // One installs, others wait. The lock goes with the file.
    let lock = File::create(home.join("lock")).and_then(|file| file.lock().map(|()| file));
    let _lock = lock.map_err(|error| format!("{}: {error}", home.display()))?;
    let environment = home.join("venv");
    let python = environment.join("bin/python");
    let works = || run(Command::new(&python).args(["-c", "import grpc"]));
    if works().is_ok() {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    let pip = || {
        let quiet =
            ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", GRPCIO];
        run(Command::new(&python).args(quiet))
    };
    // Once more: it comes over a network.
    pip().or_else(|_| pip())?;
    works()?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}\n{said}", output.status)) }
}
