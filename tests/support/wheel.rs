//! Programs and libraries from Python's registry: each in a virtual environment under the target folder, made once.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

/// Installs a wheel (`name==version`), unless it is there and works; the virtual environment that it is in.
pub fn installed(wheel: &str, works: impl Fn(&Path) -> Command) -> Result<PathBuf, String> {
    // Unit tests are not told the folder, and use the usual one.
    let target = option_env!("CARGO_TARGET_TMPDIR").unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/target/tmp"));
    let home = Path::new(target).join(wheel.replace("==", "-"));
    std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    // One installs, others wait. The lock goes with the file.
    let lock = File::create(home.join("lock")).and_then(|file| file.lock().map(|()| file));
    let _lock = lock.map_err(|error| format!("{}: {error}", home.display()))?;
    let environment = home.join("venv");
    let check = || run(&mut works(&environment));
    if check().is_ok() {
        return Ok(environment);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    let pip = || {
        let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", wheel];
        run(Command::new(environment.join("bin/python")).args(quiet))
    };
    // Once more: it comes over a network.
    pip().or_else(|_| pip())?;
    check()?;
    Ok(environment)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}\n{said}", output.status)) }
}
