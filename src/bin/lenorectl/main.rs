//! `lenorectl`: sees and steers a running daemon by its control socket and its board.

mod board;
mod cli;
mod client;
mod commands;
mod failure;
mod output;
mod process;
mod status;
mod target;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "lenorectl", &mut script);
        output::say(String::from_utf8_lossy(&script));
        return ExitCode::SUCCESS;
    }
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::warn(&failure);
            ExitCode::from(failure.code)
        }
    }
}
