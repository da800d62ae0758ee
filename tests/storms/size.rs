//! How large a storm is: small, unless a variable says otherwise; and what the machine allows.

use std::str::FromStr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a variable says, if it is set.
pub fn said<T: FromStr>(variable: &str, usual: T) -> T {
    match std::env::var(variable) {
        Ok(said) => said.parse().unwrap_or_else(|_| panic!("{variable}={said} is not a number")),
        Err(_) => usual,
    }
}

/// Raises the limit of open files as far as it goes, which children inherit; how many that is.
pub fn open_files() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
    maximum.map_or(usize::MAX, |most| most.try_into().unwrap_or(usize::MAX))
}
