//! The command line: one file per command. Parsing happens here, work happens in the library.

mod again;
mod annotate;
mod bar;
mod batch;
mod call;
mod data;
mod demo;
mod evaluate;
mod failure;
mod featurize;
mod finish;
mod interruption;
mod keygen;
mod location;
mod lr_find;
mod network;
mod output;
mod publish;
mod recipe;
mod refine;
mod resources;
mod rollback;
mod runs;
mod score;
mod setup;
mod svm;
mod sweep;
mod tracking;
mod train;
mod training;
mod values;
mod versions;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Id, Parser, Subcommand};

use self::bar::Bar;
use self::failure::{Done, Failure};
use self::output::{Output, printable_lines};
use crate::configuration::{self, Configuration};
use crate::progress::Progress;
use crate::setup::Cache;

/// Turns a folder of labelled images into a trained image classifier.
///
/// Every option can also be set in ikat.toml or as an environment variable: a flag wins over
/// IKAT_<OPTION>, which wins over the file, which wins over the default.
#[derive(Debug, Parser)]
#[command(name = "trainer", version, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands, listed behind what is its own.
#[derive(Debug, Args)]
#[command(next_display_order = 900)]
struct Common {
    /// Parameter file [default: ikat.toml in the current folder, where there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON document instead of text. Errors are text on stderr; the exit code tells whether there was one
    #[arg(long, global = true)]
    json: bool,
    /// No progress and no hints, only results, notes on them, and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Folder for downloaded networks and computed features [default: the user's cache folder]
    #[arg(long, global = true, value_name = "DIR")]
    cache: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
    #[command(subcommand)]
    Data(data::Data),
    Annotate(annotate::Arguments),
    Train(train::Arguments),
    Refine(refine::Arguments),
    Featurize(featurize::Arguments),
    LrFind(lr_find::Arguments),
    Evaluate(evaluate::Arguments),
    Sweep(sweep::Arguments),
    #[command(subcommand)]
    Runs(runs::Runs),
    Keygen(keygen::Arguments),
    Publish(publish::Arguments),
    Rollback(rollback::Arguments),
    Versions(versions::Arguments),
    Score(score::Arguments),
    Batch(batch::Arguments),
    Call(call::Arguments),
    Setup(setup::Arguments),
}

/// What a command works with besides its own options.
struct Session {
    output: Output,
    progress: Bar,
    cache: Option<PathBuf>,
    /// The options that were typed, and come neither from the environment nor from a file.
    typed: Vec<Id>,
}

impl Session {
    fn cache(&self) -> Result<Cache, Failure> {
        Ok(match &self.cache {
            Some(folder) => Cache::at(folder),
            None => Cache::locate()?,
        })
    }

    /// Whether the option with this identifier was typed.
    fn is_typed(&self, option: &str) -> bool {
        self.typed.iter().any(|id| id == option)
    }

    /// Whether `option` is set more firmly than the `other`: typed, or by the environment.
    fn is_firmer(&self, option: &str, other: &str) -> bool {
        let firmness = |option: &str| {
            if self.is_typed(option) {
                2
            } else {
                u8::from(configuration::environment(option).is_some())
            }
        };
        firmness(option) > firmness(other)
    }

    /// Warns of those of `options` that were typed though they have no effect: of each, whether it has one here, and
    /// what it is for. Files and the environment speak to commands of every kind at once.
    fn warn_of_idle(&self, options: &[(&str, bool, &str)]) {
        for reason in idle(&self.typed, options) {
            self.warn(&reason);
        }
    }

    /// A caveat of the result, which is told on standard error even where nothing else is.
    fn note(&self, text: &str) {
        self.progress.say(text);
    }

    /// How the work goes, on standard error: nothing under --quiet.
    fn remark(&self, text: &str) {
        self.progress.note(text);
    }

    /// Something that went wrong without hindering the rest.
    fn warn(&self, text: &str) {
        let style = anstyle::Style::new()
            .bold()
            .fg_color(Some(anstyle::AnsiColor::Yellow.into()));
        let text = printable_lines(text);
        self.progress.print(&format!("{style}warning{style:#}: {text}"));
    }
}

/// Runs the program with the arguments that it was started with.
pub fn run() -> ExitCode {
    match parse(&std::env::args_os().collect::<Vec<_>>()) {
        Ok((arguments, typed)) => match dispatch(arguments, typed) {
            Ok(done) => done.into(),
            Err(failure) => failure.report(),
        },
        Err(Parsing::Clap(error)) => error.exit(),
        Err(Parsing::Configuration(error)) => Failure::usage(error.to_string()).report(),
    }
}

/// The command line as clap knows it, without anything from a file: for documentation and tests.
pub fn command() -> clap::Command {
    with_negative_numbers(Arguments::command())
}

/// The same command, taking `-1` for a number and for no option, so that the option before it says what it takes.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    command
        .allow_negative_numbers(true)
        .mut_subcommands(with_negative_numbers)
}

enum Parsing {
    Clap(clap::Error),
    Configuration(configuration::ConfigurationError),
}

/// The arguments, and which of the command's options were typed. Flags win over the environment, which wins over the
/// file: the file's values become clap's defaults.
fn parse(arguments: &[OsString]) -> Result<(Arguments, Vec<Id>), Parsing> {
    let named = std::env::var_os(configuration::FILE_VARIABLE);
    let mut command = Configuration::find(arguments.iter().cloned(), named, Path::new("."))
        .and_then(|configuration| configuration.apply(command(), arguments))
        .map_err(|error| match command().try_get_matches_from(arguments) {
            // Help is given whatever is wrong with the file.
            Err(help) if !help.use_stderr() => Parsing::Clap(help),
            _ => Parsing::Configuration(error),
        })?;
    let matches = command
        .try_get_matches_from_mut(arguments)
        .map_err(|error| Parsing::Clap(configuration::explained(error, &mut command, arguments)))?;
    let arguments = Arguments::from_arg_matches(&matches).map_err(Parsing::Clap)?;
    Ok((arguments, configuration::typed(&matches)))
}

/// What to say of those of the `options` that are among the `typed` and have no effect.
fn idle(typed: &[Id], options: &[(&str, bool, &str)]) -> Vec<String> {
    let idle = options
        .iter()
        .filter(|(option, used, _)| !used && typed.iter().any(|id| id == option));
    idle.map(|(option, _, purpose)| format!("--{} is for {purpose} alone", option.replace('_', "-")))
        .collect()
}

fn dispatch(Arguments { common, command }: Arguments, typed: Vec<Id>) -> Result<Done, Failure> {
    let session = Session {
        output: Output::new(common.json, common.quiet),
        progress: Bar::new(common.quiet),
        cache: common.cache,
        typed,
    };
    match command {
        Command::Demo(arguments) => demo::run(&arguments, &session),
        Command::Data(data) => data::run(&data, &session),
        Command::Annotate(arguments) => annotate::run(&arguments, &session),
        Command::Train(arguments) => train::run(&arguments, &session),
        Command::Refine(arguments) => refine::run(&arguments, &session),
        Command::Featurize(arguments) => featurize::run(&arguments, &session),
        Command::LrFind(arguments) => lr_find::run(&arguments, &session),
        Command::Evaluate(arguments) => evaluate::run(&arguments, &session),
        Command::Sweep(arguments) => sweep::run(&arguments, &session),
        Command::Runs(runs) => runs::run(&runs, &session),
        Command::Keygen(arguments) => keygen::run(&arguments, &session),
        Command::Publish(arguments) => publish::run(&arguments, &session),
        Command::Rollback(arguments) => rollback::run(&arguments, &session),
        Command::Versions(arguments) => versions::run(&arguments, &session),
        Command::Score(arguments) => score::run(&arguments, &session),
        Command::Batch(arguments) => batch::run(&arguments, &session),
        Command::Call(arguments) => call::run(&arguments, &session),
        Command::Setup(arguments) => setup::run(&arguments, &session),
    }
}

#[cfg(test)]
mod tests;
