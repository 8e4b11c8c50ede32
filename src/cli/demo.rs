//! `demo`: two endpoints on this machine call each other.

use super::args::Demo;
use super::output::Output;
use super::{Exit, Failure};

pub(super) async fn run(_options: &Demo, _output: &Output) -> Result<Exit, Failure> {
    Ok(Exit::Internal)
}
