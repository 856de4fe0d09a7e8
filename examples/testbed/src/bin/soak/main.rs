//! The rows that need minutes: the same facts as the end-to-end tests, for as long as wanted.
#![expect(clippy::print_stdout, reason = "the table is the output")]

mod rows;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use meshwright_testbed::{PodSpec, World, WorldError, dispatch, privilege};

use crate::rows::ROWS;

/// Runs a mesh under load and faults for minutes, and prints a table.
#[derive(Debug, Parser)]
#[command(name = "soak", version)]
struct Options {
    /// A row to run; may be given several times. See `--list`.
    #[arg(long = "row", value_name = "NAME")]
    rows: Vec<String>,
    /// Run every row.
    #[arg(long)]
    all: bool,
    /// List the rows and what each promises.
    #[arg(long)]
    list: bool,
    /// How long each row runs: `30s`, `10m`.
    #[arg(long = "for", value_name = "TIME", default_value = "120s", value_parser = duration)]
    time: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    );
    let number: u64 = number
        .parse()
        .map_err(|_number| format!("`{text}` is no time"))?;
    match unit {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(60 * number)),
        _ => Err(format!("`{text}` needs a unit: s or m")),
    }
}

fn main() -> ExitCode {
    if let Some(code) = dispatch() {
        return code;
    }
    let options = Options::parse();
    if options.list {
        for row in &ROWS {
            println!("{:<16} {}", row.name, row.promise);
        }
        return ExitCode::SUCCESS;
    }
    match privilege::obtain().and_then(|_| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, WorldError> {
    if let Some(unknown) = options
        .rows
        .iter()
        .find(|name| ROWS.iter().all(|row| row.name != **name))
    {
        return Err(WorldError::new(format!("find row `{unknown}`; see --list")));
    }
    if options.rows.is_empty() && !options.all {
        return Err(WorldError::new("know what to run: --row NAME or --all"));
    }
    let mut good = true;
    println!("{:<16}{:>10}  {:<8}details", "row", "seconds", "result");
    for row in ROWS.iter() {
        if !options.all && options.rows.iter().all(|name| name != row.name) {
            continue;
        }
        let begin = Instant::now();
        // A world for each row: what one leaves behind must not help or harm the next.
        let world = build()?;
        let outcome = (row.run)(&world, options.time);
        let (result, details) = match outcome {
            Ok(details) => ("ok", details),
            Err(error) => {
                good = false;
                let dir = world.keep_files().display().to_string();
                ("FAILED", format!("{} (logs: {dir})", error.chain()))
            }
        };
        println!(
            "{:<16}{:>10.0}  {result:<8}{details}",
            row.name,
            begin.elapsed().as_secs_f64()
        );
    }
    Ok(good)
}

fn build() -> Result<World, WorldError> {
    let world = World::builder()
        .node("node-1")
        .node("node-2")
        .pod(PodSpec::new("a1").on("node-1").enrolled())
        .pod(PodSpec::new("a2").on("node-1").enrolled())
        .pod(PodSpec::new("b1").on("node-2").enrolled())
        .pod(PodSpec::new("b2").on("node-2").enrolled())
        .proxy_env("SECRET_TTL", rows::TTL)
        .build()?;
    for pod in world.pods() {
        world.settled(pod, true)?;
    }
    Ok(world)
}
