//! The `convoy` binary: the command line, and what it needs of the process.

use std::process::ExitCode;

/// The server allocates many small values on many threads, which the system's allocator is slow at. It asks for no huge pages: the
/// kernel clears one when it is first touched, which on a virtual machine may take milliseconds in which nobody is answered.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    convoy::cli::main()
}
