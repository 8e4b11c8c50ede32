//! The command line. It uses only the public API; people read stderr, scripts read stdout.

mod account;
mod args;
mod call;
mod demo;
mod files;
mod keys;
mod output;
mod receive;
mod send;

use args::{Arguments, Command};
use clap::{CommandFactory, Parser};
use output::Output;
use std::process::ExitCode;

/// Exit codes: a contract with scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    Internal = 1,
    Usage = 2,
    Config = 3,
    Authentication = 4,
    Unreachable = 5,
    PeerUnavailable = 6,
    Rejected = 7,
    NoAnswer = 8,
    MediaFailed = 9,
    Security = 10,
    File = 11,
    Limit = 12,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An error for a person: what happened, why, what to try.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into() }
    }
}

impl From<crate::error::Error> for Failure {
    fn from(error: crate::error::Error) -> Self {
        use crate::error::Error;
        let (exit, hint) = match &error {
            Error::Config(_) => (Exit::Config, ""),
            Error::Authentication(_) => {
                (Exit::Authentication, " Check the account and its password (--password-file, OFFHOOK_PASSWORD).")
            }
            Error::Unreachable(_) => {
                (Exit::Unreachable, " Check the name and the network, or give --server HOST:PORT.")
            }
            Error::Security(_) => (
                Exit::Security,
                " Nothing secret was sent. If the server has its own CA, give its certificate with --ca-file.",
            ),
            Error::File { .. } => (Exit::File, " Check its name and who may read it."),
            Error::Limit(_) => (Exit::Limit, ""),
            Error::Misuse(crate::client::Misuse::Offline) => {
                (Exit::Unreachable, " Check the network and the server, or wait for the other side.")
            }
            Error::Misuse(_) => (Exit::Internal, ""),
            Error::Closed => (Exit::Unreachable, ""),
            Error::Io(_) => (Exit::Internal, ""),
        };
        Self::new(exit, format!("{error}.{hint}"))
    }
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            // A closed stdout or stderr leaves nothing to report to.
            let _ = error.print();
            return exit.into();
        }
    };
    let output = Output::new(&arguments.global);
    output.start_logging(&arguments.global);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => {
            output.error(&format!("no runtime: {why}"));
            return Exit::Internal.into();
        }
    };
    let outcome = runtime.block_on(run(arguments.command, &output));
    // A task that hangs in a name look-up must not hold the exit back.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.error(&failure.text);
            failure.exit.into()
        }
    }
}

async fn run(command: Command, output: &Output) -> Result<Exit, Failure> {
    match command {
        Command::Demo(options) => demo::run(&options, output).await,
        Command::Call(options) => call::call(&options, output).await,
        Command::Answer(options) => call::answer(&options, output).await,
        Command::Send(options) => send::run(&options, output).await,
        Command::Receive(options) => receive::run(&options, output).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "offhook", &mut std::io::stdout());
            Ok(Exit::Ok)
        }
        Command::Man => {
            let page = clap_mangen::Man::new(Arguments::command());
            page.render(&mut std::io::stdout()).map_err(|why| Failure::new(Exit::Internal, why.to_string()))?;
            Ok(Exit::Ok)
        }
    }
}
